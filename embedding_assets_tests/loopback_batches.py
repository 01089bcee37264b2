"""Files and batches of the loopback server, as OpenAI documents them.

A batch goes one step on each time it is looked at. Its answers come in another order than its
requests; those that expired, or were refused, are in the error file.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

STEPS = ("validating", "in_progress", "finalizing", "completed")
Embed = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class LoopbackBatches:
    """What the provider has, and what goes wrong."""

    steps: tuple[str, ...] = STEPS
    fails: list[str] = field(default_factory=list)  # codes with which the next batches fail
    expires: Callable[[str], bool] = lambda _: False  # which custom ids get no answer in time
    refuses: Callable[[str], bool] = lambda _: False
    refuses_creation: bool = False
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    created: int = 0
    tokens: int = 0

    def handle(
        self, method: str, path: str, headers: dict[str, str], body: bytes, embed: Embed
    ) -> tuple[int, bytes] | None:
        """The answer to one request; None for a path of another API."""
        parts = path.removeprefix("/v1/").strip("/").split("/")
        if parts[0] == "files":
            return self._files(method, parts[1:], headers, body)
        if parts[0] == "batches":
            return self._batches(method, parts[1:], body, embed)
        return None

    def _files(
        self, method: str, rest: list[str], headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        if method == "POST":
            name, content = _uploaded(headers["content-type"], body)
            return 200, _json(self._add_file(name, "batch", content))
        if not rest:
            shown = [_without_content(each) for each in self.files.values()]
            return 200, _json({"object": "list", "data": shown, "has_more": False})
        file = self.files.get(rest[0])
        if file is None:
            return 404, _json({"error": {"message": "no such file", "code": None}})
        if rest[1:] == ["content"]:
            return 200, file["content"]
        if method == "DELETE":
            del self.files[rest[0]]
            return 200, _json({"id": rest[0], "object": "file", "deleted": True})
        return 200, _json(_without_content(file))

    def _add_file(self, name: str, purpose: str, content: bytes) -> dict[str, Any]:
        identity = f"file-{len(self.files) + self.created + len(content)}-{time.monotonic_ns()}"
        self.files[identity] = {
            "id": identity,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
            "content": content,
        }
        return _without_content(self.files[identity])

    def _batches(
        self, method: str, rest: list[str], body: bytes, embed: Embed
    ) -> tuple[int, bytes]:
        if method == "POST" and not rest and self.refuses_creation:
            error = {"message": "no", "code": "invalid_request", "param": None}
            return 400, _json({"error": error})
        if method == "POST" and not rest:
            return 200, _json(_shown(self._create(json.loads(body))))
        if not rest:
            newest = [_shown(each) for each in reversed(self.batches.values())]
            return 200, _json({"object": "list", "data": newest, "has_more": False})
        batch = self.batches.get(rest[0])
        if batch is None:
            return 404, _json({"error": {"message": "no such batch", "code": None}})
        self._go_on(batch, embed)
        return 200, _json(_shown(batch))

    def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        self.created += 1
        assert request["endpoint"] == "/v1/embeddings"
        assert request["completion_window"] == "24h"
        batch = {
            "id": f"batch_{self.created}",
            "object": "batch",
            "endpoint": request["endpoint"],
            "completion_window": "24h",
            "created_at": int(time.time()),
            "input_file_id": request["input_file_id"],
            "metadata": request.get("metadata"),
            "status": self.steps[0],
            "step": 0,
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
        }
        self.batches[batch["id"]] = batch
        return batch

    def _go_on(self, batch: dict[str, Any], embed: Embed) -> None:
        if batch["status"] in {"completed", "expired", "failed", "cancelled"}:
            return
        if self.fails and batch["step"] == 0:
            code = self.fails.pop(0)
            batch["status"] = "failed"
            batch["errors"] = {"object": "list", "data": [{"code": code, "message": "no"}]}
            return
        batch["step"] += 1
        batch["status"] = self.steps[min(batch["step"], len(self.steps) - 1)]
        if batch["status"] in {"completed", "expired"}:
            self._answer(batch, embed)

    def _answer(self, batch: dict[str, Any], embed: Embed) -> None:
        lines = self.files[batch["input_file_id"]]["content"].splitlines()
        requests = [json.loads(line) for line in lines]
        assert len({each["custom_id"] for each in requests}) == len(requests) <= 50_000
        answers, errors = [], []
        for request in reversed(requests):
            name = request["custom_id"]
            if self.expires(name):
                error = {"code": "batch_expired", "message": "not in time"}
                errors.append({"custom_id": name, "response": None, "error": error})
            elif self.refuses(name):
                body = {"error": {"code": "invalid_input", "message": "no"}}
                response = {"status_code": 400, "body": body}
                errors.append({"custom_id": name, "response": response, "error": None})
            else:
                body = embed(request["body"])
                self.tokens += body["usage"]["prompt_tokens"]
                response = {"status_code": 200, "request_id": "r", "body": body}
                answers.append({"custom_id": name, "response": response, "error": None})
        for key, found in (("output_file_id", answers), ("error_file_id", errors)):
            if found:
                content = b"".join(_json(line) + b"\n" for line in found)
                batch[key] = self._add_file(f"{key}.jsonl", "batch_output", content)["id"]


def _uploaded(content_type: str, body: bytes) -> tuple[str, bytes]:
    """The name and the content of the file in a multipart form."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    for part in body.split(b"--" + boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            name = head.partition(b'filename="')[2].partition(b'"')[0].decode()
            return name, content.removesuffix(b"\r\n")
    raise AssertionError("no file in the form")


def _without_content(file: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in file.items() if name != "content"}


def _shown(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name != "step"}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
