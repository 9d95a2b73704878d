"""JSON over HTTP, as OpenStack's APIs speak it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

ANSWER_WITHIN_S = 60.0


class ApiError(Exception):
    """A service refused a request."""

    def __init__(self, status: int, body: str) -> None:
        self.status = status
        self.body = body
        super().__init__(f"HTTP {status}: {body}")


def request(method: str, url: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] = {}) -> tuple[Any, Mapping[str, str]]:
    """What the service answers, and the headers of that.

    Raises:
        ApiError: it refused.
        OSError: nobody answers.
    """
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, method=method, data=data, headers={"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(asked, timeout=ANSWER_WITHIN_S) as answer:
            text = answer.read()
            return json.loads(text) if text else None, answer.headers
    except urllib.error.HTTPError as error:
        with error:
            raise ApiError(error.code, error.read().decode()) from None
