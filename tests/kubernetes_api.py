"""A small stand-in for a Kubernetes API server: no real one can be had where these tests run.

It speaks the protocol as far as the real kubectl needs it for our commands (discovery, create, get, list by label,
delete with a precondition, logs of pods), and keeps objects in memory. It has no admission, schemas, authentication,
second namespace or KubeRay: what becomes of a RayJob, and what its pod prints, is what a test says.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Tree = dict[str, Any]

KINDS: dict[str, dict[str, str]] = {
    "v1": {
        "namespaces": "Namespace",
        "serviceaccounts": "ServiceAccount",
        "configmaps": "ConfigMap",
        "secrets": "Secret",
        "pods": "Pod",
    },
    "authorization.k8s.io/v1": {"selfsubjectaccessreviews": "SelfSubjectAccessReview"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "ray.io/v1": {"rayjobs": "RayJob"},
}
"""Group and version -> resource -> kind: all that this cluster has."""


class Cluster:
    """What the API server holds, for a test to look at, and to change as Kubernetes and KubeRay would.

    Attributes:
        objects: (resource, name) -> object.
        logs: pod -> what it has printed.
        ended: pods that print no more.
        cuts: how many more streams of logs are to break off.
        kinds: what it has of `KINDS`.
        refused: `verb resource` that whoever asks may not do; only reviews of access and secrets go by it.
        requests: method, path and body of each that changed or asked something, in order.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Tree] = {}
        self.logs: dict[str, str] = {}
        self.ended: set[str] = set()
        self.cuts = 0
        self.kinds = dict(KINDS)
        self.refused: set[str] = set()
        self.requests: list[tuple[str, str, str]] = []
        self.lock = threading.RLock()

    def names(self, resource: str) -> list[str]:
        return [name for kind, name in self.objects if kind == resource]

    def stands(self, rayjob: str, deployment: str, job: str, message: str = "") -> None:
        """Set a RayJob's status."""
        told = {"jobDeploymentStatus": deployment, "jobStatus": job, "message": message}
        self.objects["rayjobs", rayjob]["status"] = told

    def prints(self, rayjob: str, text: str, *, pod: str = "1", ends: bool = False) -> None:
        """A pod of the RayJob's submitter, and something that it prints."""
        name, spec = f"{rayjob}-{pod}", {"containers": [{"name": "ray-job-submitter"}]}
        with self.lock:
            metadata = {"name": name, "labels": {"job-name": rayjob}}
            self.create("pods", {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
            self.logs[name] = self.logs.get(name, "") + text
            self.ended |= {name} if ends else set()

    def create(self, resource: str, tree: Tree) -> bool:
        """Keep a new object; False where there is one of its name."""
        with self.lock:
            if (resource, tree["metadata"]["name"]) in self.objects:
                return False
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_700_000_000 + len(self.requests)))
            tree["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": moment}
            self.objects[resource, tree["metadata"]["name"]] = tree
            return True

    def delete(self, resource: str, name: str) -> None:
        del self.objects[resource, name]
        for pod in [pod for pod in self.names("pods") if pod.rpartition("-")[0] == name]:
            del self.objects["pods", pod], self.logs[pod]


@contextmanager
def kubernetes(kubeconfig: Path) -> Iterator[Cluster]:
    """A cluster, and a file that leads kubectl to it."""
    cluster = Cluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": cluster}))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    there = {"cluster": {"server": f"http://127.0.0.1:{server.server_port}"}, "name": "test"}
    contexts = [{"context": {"cluster": "test", "user": ""}, "name": "test"}]
    kubeconfig.write_text(yaml.safe_dump({"clusters": [there], "contexts": contexts, "current-context": "test"}))
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def handle_one(self) -> None:
        parts, text = urlsplit(self.path), self._body()
        path, query = parts.path.strip("/").split("/"), parse_qs(parts.query)
        if path[-1] == "log":
            self._log(path[-2], follow="follow" in query)
            return
        with self.cluster.lock:
            self.cluster.requests.append((self.command, parts.path, text))
            code, tree = self._answer(path, query, text)
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(tree).encode())

    do_GET = do_POST = do_PATCH = do_DELETE = handle_one  # noqa: N815

    def _answer(self, path: list[str], query: dict[str, list[str]], text: str) -> tuple[int, Tree]:
        if len(path) == 1:
            groups = [_group(version) for version in self.cluster.kinds if "/" in version]
            return 200, {"kind": "List", "apiVersion": "v1", "versions": ["v1"], "groups": groups}
        if path[0] == "openapi":
            return 200, _openapi("/".join(path[2:]))
        version, rest = ("/".join(path[1:3]), path[3:]) if path[0] == "apis" else (path[1], path[2:])
        if not rest:
            facts = {"singularName": "", "verbs": ["create", "delete", "get", "list", "patch"]}
            whole = ("Namespace", "SelfSubjectAccessReview")
            kinds = [
                {"name": n, "kind": k, "namespaced": k not in whole, **facts}
                for n, k in self.cluster.kinds[version].items()
            ]
            return 200, {"kind": "APIResourceList", "groupVersion": version, "resources": kinds}
        resource, name = [*(rest[2:] if rest[0] == "namespaces" and len(rest) > 2 else rest), ""][:2]
        if not name and self.command == "GET":
            key, _, value = query.get("labelSelector", [""])[0].partition("=")
            found = [tree for (kind, _), tree in self.cluster.objects.items() if kind == resource]
            items = [
                t for t in found if key in (its := t["metadata"].get("labels", {})) and its[key] == (value or its[key])
            ]
            return 200, {"kind": self.cluster.kinds[version][resource] + "List", "apiVersion": version, "items": items}
        return self._one(resource, name, json.loads(text or "{}"))

    def _one(self, resource: str, name: str, given: Tree) -> tuple[int, Tree]:
        if resource == "selfsubjectaccessreviews":
            asked = given["spec"]["resourceAttributes"]
            what = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            allowed = f"{asked['verb']} {what}" not in self.cluster.refused
            return 201, {**given, "status": {"allowed": allowed}}
        if resource == "secrets" and "get secrets" in self.cluster.refused:
            return _refusal(403, "Forbidden", name)
        if self.command == "POST":
            return (201, given) if self.cluster.create(resource, given) else _refusal(409, "AlreadyExists", resource)
        tree = self.cluster.objects.get((resource, name))
        if tree is None:
            return _refusal(404, "NotFound", name)
        if self.command == "DELETE":
            if given.get("preconditions", {}).get("uid") not in (None, tree["metadata"]["uid"]):
                return _refusal(409, "Conflict", name)
            self.cluster.delete(resource, name)
        return 200, tree

    def _log(self, pod: str, *, follow: bool) -> None:
        """What a pod prints: all of it so far, or as it comes until the pod ends, or the stream breaks off."""
        told, going = 0, True
        self.send_response(200)
        self.end_headers()
        while going:
            going = follow and pod in self.cluster.logs and pod not in self.cluster.ended
            piece = self.cluster.logs.get(pod, "").encode()[told:]
            self.wfile.write(piece)
            told += len(piece)
            if follow and piece and self.cluster.cuts:
                self.cluster.cuts -= 1
                return
            time.sleep(0.05)

    def _body(self) -> str:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        return body.decode()

    def log_message(self, *_: Any) -> None:
        pass


def _group(version: str) -> Tree:
    one = {"groupVersion": version, "version": version.partition("/")[2]}
    return {"name": version.partition("/")[0], "versions": [one], "preferredVersion": one}


def _openapi(place: str) -> Tree:
    """As much as says that the server itself checks fields, as all do since Kubernetes 1.27."""
    if not place:
        places = [f"{'apis' if '/' in version else 'api'}/{version}" for version in KINDS]
        return {"paths": {one: {"serverRelativeURL": "/openapi/v3/all"} for one in places}}
    paths: Tree = {}
    for version, kind in [(version, kind) for version, kinds in KINDS.items() for kind in kinds.values()]:
        what = {"group": version.rpartition("/")[0], "version": version.rpartition("/")[2], "kind": kind}
        parameters = [{"name": "fieldValidation", "in": "query"}]
        paths[f"/{kind}"] = {"patch": {"parameters": parameters, "x-kubernetes-group-version-kind": what}}
    return {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": paths}


def _refusal(code: int, reason: str, name: str) -> tuple[int, Tree]:
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": name}
