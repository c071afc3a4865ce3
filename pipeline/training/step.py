"""One optimiser step of generator and discriminator (SimSwap, section 3), doing no work twice.

The generator runs once a sample: the discriminator learns from the result that the generator learns from. The
discriminator judges target and result once each: its loss goes back into its own parameters, the generator's terms
go back through the same graph into the generator's. Both networks then move at once. Sources come as embeddings,
so the identity encoder runs once, on the result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.config import TrainConfig
from pipeline.errors import TrainingError
from pipeline.faces.identity import IdentityEncoder
from pipeline.faces.landmarks import LandmarkNetwork
from pipeline.model.device import computes_in_bfloat16
from pipeline.model.discriminator import DiscriminatorOutput
from pipeline.model.generator import Generator
from pipeline.training import losses
from pipeline.training.averaging import Average
from pipeline.training.batches import Batch
from pipeline.training.recording import Recordings
from pipeline.training.schedule import rate_factor
from pipeline.training.workers import Network, distributed, mean_over_workers, synchronise_batch_norm

Terms = dict[str, Tensor]


class TrainingStep:
    """Networks, optimisers, and the step that moves them.

    Args:
        settings: of the job.
        generator: to train; its BatchNorm and memory layout are changed.
        discriminator: from `build_discriminator`; the same.
        encoder: the frozen identity encoder that made the sources' embeddings.
        device: of all of them.
        landmarks: the frozen landmark network; needed where `losses.landmarks` has a weight.

    Attributes:
        generator: the network as it is now.
        discriminator: the network as it is now.
        average: the generator's running average.
        optimisers: Adam of generator and discriminator, by name.
        device: where they are.
    """

    def __init__(
        self,
        settings: TrainConfig,
        generator: Generator,
        discriminator: nn.Module,
        encoder: IdentityEncoder,
        device: torch.device,
        landmarks: LandmarkNetwork | None = None,
    ) -> None:
        self._settings = settings
        self.device = device
        self._dtype = next(generator.parameters()).dtype  # float64 in the test that workers add up
        precision = settings.trainer.precision
        self._half = computes_in_bfloat16(device) if precision == "auto" else precision == "bfloat16"
        self._judges = bool(settings.losses.adversarial or settings.losses.weak_feature_matching)
        self._encoder = encoder.to(device)
        if settings.losses.landmarks and landmarks is None:
            raise ValueError("TrainingStep: losses.landmarks has a weight, and there is no landmark network")
        self._landmarks = landmarks.to(device) if landmarks is not None and settings.losses.landmarks else None
        generator.activation_checkpointing = settings.trainer.activation_checkpointing
        self.generator = self._placed(generator)
        self.discriminator = self._placed(discriminator)
        self.average = Average(self.generator, settings.trainer.ema_decay)
        self.optimisers = self._adam()
        judge: nn.Module = self.discriminator
        if settings.trainer.compile:
            self.generator.compile_stages()
            judge = cast(nn.Module, torch.compile(judge))  # not in place: the gradient penalty goes back twice
        self._generate = distributed(self.generator, device)
        self._discriminate = distributed(judge, device)
        self._generator_parameters = list(self.generator.parameters())
        self._discriminator_parameters = [p for p in self.discriminator.parameters() if p.requires_grad]
        self._make_gradients = self._gradients
        if settings.trainer.cuda_graphs and device.type == "cuda":
            self._make_gradients = Recordings(self._gradients, [self.generator, self.discriminator], self._penalises)

    def __call__(self, batch: Batch) -> dict[str, float]:
        """Move all weights by one batch: this worker's share of it.

        Args:
            batch: of the step that `batch.step` counts.

        Returns:
            Every loss term, cosine of result to source, gradient norms and learning rates, mean over all workers.

        Raises:
            TrainingError: a value that is not finite; no weight has moved then. Raised on every worker.
        """
        factor = rate_factor(self._settings.optimiser, batch.step, self._settings.trainer.steps)
        for name, optimiser in self.optimisers.items():
            highest = getattr(self._settings.optimiser, f"lr_{name}")
            optimiser.param_groups[0]["lr"] = highest * factor
            optimiser.zero_grad(set_to_none=True)
        terms = self._make_gradients(batch)
        terms["gradient_norm/generator"] = self._clipped(self._generator_parameters)
        terms["gradient_norm/discriminator"] = self._clipped(self._discriminator_parameters)
        names = list(terms)
        values = mean_over_workers(torch.stack([terms[name].detach().double() for name in names])).tolist()
        figures = dict(zip(names, values, strict=True))
        _refuse_non_finite(figures, batch.step)
        for optimiser in self.optimisers.values():
            optimiser.step()
        self.average.update(self.generator, batch.step)
        rates = {f"learning_rate/{name}": o.param_groups[0]["lr"] for name, o in self.optimisers.items()}
        return figures | rates

    def _gradients(self, batch: Batch) -> Terms:
        """Accumulate the gradients of a batch, micro-batch by micro-batch; gives the mean of the terms."""
        size = self._settings.trainer.micro_batch_size or len(batch)
        starts = range(0, len(batch), size)
        total: Terms = {}
        for start in starts:
            part = batch.part(slice(start, start + size))
            weight = len(part) / len(batch)
            with self._synchronised(start == starts[-1]):
                for name, value in self._pass(part, weight).items():
                    total[name] = total.get(name, 0.0) + weight * value.detach()
        return total

    def _pass(self, batch: Batch, weight: float) -> Terms:
        """Forward and backward of one micro-batch."""
        target = self._pixels(batch.target)
        source = batch.source.to(self.device, self._dtype, non_blocking=True)
        discriminator: Terms = {}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            result = self._generate(self._given(batch, target), source).to(self._dtype)
            generator = self._pixel_terms(batch, target, result, source)
            if self._judges:
                real, fake = self._discriminate(target), self._discriminate(result)
                discriminator = self._discriminator_terms(batch, target, result, real.logits, fake.logits)
                generator |= self._judged_terms(real, fake)
        self._backward(discriminator, weight, self._discriminator_parameters, keep=True)
        self._backward(generator, weight, self._generator_parameters, keep=False)
        return {f"loss/{name}": value for name, value in (discriminator | generator).items()}

    def _discriminator_terms(
        self, batch: Batch, target: Tensor, result: Tensor, real: Sequence[Tensor], fake: Sequence[Tensor]
    ) -> Terms:
        terms = {"discriminator": losses.discriminator_hinge_loss(self._exact(real), self._exact(fake))}
        if self._penalises(batch):
            mix = batch.mix.to(self.device, self._dtype)
            terms["gradient_penalty"] = losses.gradient_penalty(
                lambda images: self.discriminator(images).logits, target, result, mix
            )
        return terms

    def _pixel_terms(self, batch: Batch, target: Tensor, result: Tensor, source: Tensor) -> Terms:
        """The generator's terms that need no discriminator."""
        weights, terms = self._settings.losses, {}
        if weights.identity:
            terms["identity"] = losses.identity_loss(self._encoder(result).to(self._dtype), source)
        if weights.reconstruction and batch.same:
            terms["reconstruction"] = losses.reconstruction_loss(result, target)
        if self._landmarks is not None and batch.same:
            with torch.no_grad():
                wanted = self._landmarks(target)
            terms["landmarks"] = losses.landmark_loss(self._landmarks(result), wanted).to(self._dtype)
        return terms

    def _judged_terms(self, real: DiscriminatorOutput, fake: DiscriminatorOutput) -> Terms:
        """The generator's terms that the discriminator's outputs for target and result make."""
        weights, terms = self._settings.losses, {}
        if weights.adversarial:
            terms["adversarial"] = losses.generator_hinge_loss(self._exact(fake.logits))
        if weights.weak_feature_matching:
            terms["weak_feature_matching"] = losses.weak_feature_matching_loss(
                fake.features, real.features, weights.first_layer
            )
        return terms

    def _given(self, batch: Batch, target: Tensor) -> Tensor:
        """[B, 3, S, S] what the generator gets: crops of the batch, some of them its average's own swaps."""
        given = self._pixels(batch.given)
        if not (batch.same and self._settings.feed.disguise.own_swaps):
            return given
        stranger = batch.stranger.to(self.device, self._dtype, non_blocking=True)
        with torch.no_grad():
            swapped = self.average.network(target, stranger).to(self._dtype).clamp(0.0, 1.0)
        swapped = (swapped * 255.0).round() / 255.0  # no finer than a picture: nothing hides below its grey levels
        return torch.where(stranger.any(dim=1)[:, None, None, None], swapped, given)

    def _penalises(self, batch: Batch) -> bool:
        """Whether the gradient penalty is due."""
        weights = self._settings.losses
        return bool(weights.gradient_penalty) and batch.step % weights.gradient_penalty_every == 0

    def _backward(self, terms: Terms, weight: float, parameters: list[nn.Parameter], keep: bool) -> None:
        """Gradients of the weighted sum of some terms, in these parameters alone."""
        if not terms:  # no discriminator, or other people's sources and only terms that compare one person
            return
        total = torch.stack([self._weight(name) * value.to(self._dtype) for name, value in terms.items()]).sum()
        torch.autograd.backward(weight * total, inputs=parameters, retain_graph=keep)

    def _weight(self, term: str) -> float:
        weights = self._settings.losses
        if term == "discriminator":
            return 1.0
        every = weights.gradient_penalty_every if term == "gradient_penalty" else 1
        return float(getattr(weights, term)) * every

    def _clipped(self, parameters: list[nn.Parameter]) -> Tensor:
        longest = self._settings.optimiser.clip_norm
        norm = nn.utils.clip_grad_norm_(parameters, float("inf") if longest is None else longest)
        return norm.to(self.device)  # where nothing had a gradient it is nowhere in particular

    def _adam(self) -> dict[str, torch.optim.Adam]:
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        settings, fused = self._settings.optimiser, self.device.type == "cuda"
        return {
            name: torch.optim.Adam(
                [p for p in network.parameters() if p.requires_grad],
                getattr(settings, f"lr_{name}"),
                settings.betas,
                fused=fused or None,
            )
            for name, network in networks.items()
        }

    def _placed(self, network: Network) -> Network:
        """On the device, in training mode, in its memory layout, with BatchNorm over all workers."""
        network = network.to(self.device).train()
        if self._settings.trainer.channels_last:
            network = cast(Any, network).to(memory_format=torch.channels_last)
        return synchronise_batch_norm(network, self.device) if self._settings.trainer.sync_batch_norm else network

    def _exact(self, logits: Sequence[Tensor]) -> list[Tensor]:
        return [scale.to(self._dtype) for scale in logits]

    def _pixels(self, crops: Tensor) -> Tensor:
        layout = torch.channels_last if self._settings.trainer.channels_last else torch.contiguous_format
        return (crops.to(self.device, non_blocking=True).to(self._dtype) / 255.0).contiguous(memory_format=layout)

    @contextlib.contextmanager
    def _synchronised(self, last: bool) -> Iterator[None]:
        """Gradients travel between workers with the last micro-batch only."""
        with contextlib.ExitStack() as stack:
            for network in (self._generate, self._discriminate):
                if not last and isinstance(network, nn.parallel.DistributedDataParallel):
                    stack.enter_context(network.no_sync())
            yield


def _refuse_non_finite(figures: dict[str, float], step: int) -> None:
    wrong = [name for name, value in figures.items() if not torch.isfinite(torch.tensor(value))]
    if wrong:
        mend = "Lower optimiser.lr_generator, set optimiser.clip_norm=1 or trainer.precision=float32"
        raise TrainingError(f"step {step}", f"not finite: {', '.join(wrong)}", mend)
