"""Logging of the shell: structlog to standard error, as text or JSON, with constant event names."""

from __future__ import annotations

import logging
import sys

import structlog

Logger = structlog.stdlib.BoundLogger


def open_log(level: str, form: str, host: str) -> Logger:
    """A logger bound to the host; one line an event. ``level``: debug, info, warning or error; ``form``: text or json."""
    renderer = structlog.processors.JSONRenderer() if form == "json" else structlog.processors.LogfmtRenderer(bool_as_flag=False)
    logger: Logger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    ).bind(host=host)
    return logger
