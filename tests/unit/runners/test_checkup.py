"""Faults that are planted, one by one, and found by `simswap doctor` with what mends them."""

from __future__ import annotations

import datetime
import http.server
import resource
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from cluster.submission import JOBS
from jobs.doctor import run
from pipeline.config import TrainConfig
from pipeline.media.copies import local_copy
from pipeline.portrait_pack import pack_folder, shipped_generator
from pipeline.runners.checkup.subjects import check_subjects, subjects_of
from pipeline.settings import load_settings
from tests.faults.places import small_disk
from tests.object_store import ObjectStore
from tests.unit.media.stores import set_environment
from tests.unit.test_settings import KINDS

Words = dict[str, str]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Words:
    """Settings of a swap that nothing is wrong with, and an environment of the same kind."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "in").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "in" / "a.png")
    (tmp_path / "swap.yaml").write_text("{}")
    return {
        "config": f"{tmp_path}/swap.yaml",
        "inputs": f"{tmp_path}/in",
        "output": f"{tmp_path}/out",
        "source": f"{tmp_path}/in/a.png",
        "checkpoint": shipped_generator(),
        "models": pack_folder("portraits"),
        "tracking.uri": f"sqlite:///{tmp_path}/mlflow.db",
        "pools.swap.workers": "1",
        "ray.object_store_bytes": "100000000",
    }


def found(words: Words, *flags: str) -> dict[str, tuple[str, str, str]]:
    """The gravest check of each name: level, what it says, how it is mended."""
    given = [f"{name}={value}" for name, value in words.items() if name != "config"]
    result = run(["swap", words["config"], *given, *flags], False)
    order = ("ok", "skipped", "warning", "fault")
    checks = sorted(result["checks"], key=lambda check: order.index(check["level"]))
    return {check["name"]: (check["level"], check["says"], check["mend"]) for check in checks}


def assert_found(words: Words, name: str, level: str, says: str, mend: str, *flags: str) -> None:
    checks = found(words, *flags)
    assert checks[name][0] == level, checks[name]
    assert says in checks[name][1]
    assert mend in checks[name][2]


def test_nothing_is_found_where_nothing_is_wrong(words: Words, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    checks = found(words)
    assert {level for level, _, _ in checks.values()} <= {"ok", "skipped"}, checks
    assert {"python", "packages", "gpu", "cpus", "memory", "shared memory", "disk", "inputs", "output"} < checks.keys()
    assert {"source", "models", "checkpoint", "videos.encoder", "mlflow", "token"} < checks.keys()
    assert sorted(tmp_path.rglob("*")) == before, "a doctor changes nothing"


@pytest.mark.parametrize("command", JOBS)
def test_all_that_a_job_names_is_looked_at(command: str) -> None:
    kind, given = KINDS[command]
    subjects = subjects_of(load_settings(kind, None, given))
    assert all((subjects.settings, subjects.needs, subjects.read, subjects.written, subjects.models))


@pytest.mark.parametrize(
    ("setting", "value", "name", "says", "mend"),
    [
        ("inputs", "TMP/none", "inputs", "nothing is there", "Check the address"),
        ("output", "TMP/swap.yaml", "output", "not a folder", "Give a folder"),
        ("source", "TMP/nobody.jpg", "source", "nothing is there", "Set source"),
        ("mask.model", "TMP/mask.onnx", "mask.model", "nothing is there", "Set mask.model"),
        ("models", "TMP/pack", "models", "no such model pack", "Give a folder of .onnx files"),
        ("models", pack_folder("judge"), "checkpoint", "holds another", "Set models to the pack that trained it"),
        ("checkpoint", "TMP/swap.yaml", "checkpoint", "not a safetensors file", "import-checkpoint"),
        ("checkpoint", "TMP/gone.safetensors", "checkpoint", "no such file", "simswap train"),
        ("pools.swap.workers", "99", "cpus", "reserves", "Lower pools.analyse.cpus"),
        ("pools.swap.gpus", "1", "gpu", "there are 0", "Lower pools.*.gpus"),
        ("videos.encoder.pixel_format", "pal8", "videos.encoder", "libx264 has", ""),
    ],
)
def test_wrong_settings_are_found(
    words: Words, tmp_path: Path, setting: str, value: str, name: str, says: str, mend: str
) -> None:
    words[setting] = value.replace("TMP", str(tmp_path))
    assert_found(words, name, "fault", says, mend)


def test_a_pack_without_the_landmark_network_that_a_training_compares_by_is_found(tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    for file in Path(pack_folder("portraits")).glob("[!l]*.onnx"):
        (tmp_path / "pack" / file.name).symlink_to(file)
    words = [f"data={tmp_path}", f"output={tmp_path}/run", "losses.landmarks=5"]
    says = {}
    for models in (pack_folder("portraits"), str(tmp_path / "pack")):
        subjects = subjects_of(load_settings(TrainConfig, None, [*words, f"models={models}"]))
        says[models] = next(check for check in check_subjects(subjects) if check.name == "losses.landmarks")
    assert [check.level for check in says.values()] == ["ok", "fault"]
    assert "holds no 2D landmark network" in says[str(tmp_path / "pack")].says


def test_too_little_shared_memory_is_found(words: Words) -> None:
    words["ray.object_store_bytes"] = str(10**15)
    assert_found(words, "shared memory", "warning", "ray.object_store_bytes", "--shm-size")


def test_a_full_disk_is_found(words: Words, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "4m"):
        words["output"] = f"{tmp_path}/small/out"
        assert_found(words, "disk", "fault", "0.0 GB free", "Make room")


def test_too_few_open_files_are_found(words: Words) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        assert_found(words, "open files", "warning", "at most 1024", "ulimit -n")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_package_of_a_wrong_version_is_found(words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "av-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: av\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert_found(words, "packages", "fault", "av is 1.0", "pip install 'av>=18")


def test_an_mlflow_that_is_down_is_found(words: Words) -> None:
    words["tracking.uri"] = "http://127.0.0.1:9"
    assert_found(words, "mlflow", "warning", "cannot be used", "set tracking.uri")


def test_tokens_that_are_open_empty_or_gone_are_found(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-of-the-cluster")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    assert_found(words, "token", "fault", "other users", f"chmod 600 {token}")
    assert "secret-of-the-cluster" not in str(found(words))
    token.chmod(0o600)
    assert found(words)["token"][0] == "ok"
    token.write_text("")
    assert_found(words, "token", "fault", "is empty", "ray get-auth-token")
    token.unlink()
    assert_found(words, "token", "fault", "cannot be read", "ray get-auth-token")


def test_a_cluster_that_is_not_there_is_found(words: Words) -> None:
    assert_found(words, "cluster", "fault", "no job server answers", "Is the cluster up", "address=http://127.0.0.1:9")


def test_an_expired_certificate_is_found(words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with https_server(tmp_path, days=-1) as (address, certificate):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert_found(words, "cluster", "fault", "certificate has expired", "Renew it", f"address={address}")


def test_stores_that_refuse_are_found(
    words: Words, tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, object_store)
    local_copy.cache_clear()
    words["storage.attempts"], words["storage.connect_timeout_s"] = "1", "2"
    inputs = words["inputs"]
    words["inputs"] = "s3://no-such-bucket-here/in"
    assert_found(words, "inputs", "fault", "no such bucket", "Make it, or check the name")
    words["inputs"] = f"s3://{object_store.bucket}/nothing-below-this"
    assert_found(words, "inputs", "fault", "nothing is there", "Check the address")
    words["inputs"], words["analysis.write_table"] = inputs, f"s3://{object_store.bucket}/table"
    assert found(words)["analysis.write_table"][0] == "ok"
    assert found(words)["credentials"] == ("ok", "for s3:// from env", "")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    words["analysis.write_table"] += "-of-another"  # a store is opened once in each process
    assert_found(words, "analysis.write_table", "fault", "refuses these credentials", "AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    words["analysis.write_table"] += "-where-nobody-is"
    assert_found(words, "analysis.write_table", "fault", "cannot be reached", "Check AWS_ENDPOINT_URL")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert_found(words, "credentials", "fault", "none for s3://", "AWS_PROFILE")


@contextmanager
def https_server(folder: Path, days: int) -> Iterator[tuple[str, Path]]:
    """A server on this machine whose certificate is good for so many days from now, and that certificate."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, secret)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}", certificate
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
