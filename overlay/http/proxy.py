"""Finds the HTTP proxy that this computer uses for HTTPS: HTTPS_PROXY and NO_PROXY, or the system's settings.

Used for the tunnel (overlay/http/tunnel.py), because many networks that need it let HTTPS out through a proxy only.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from urllib.request import getproxies, proxy_bypass

from yarl import URL

log = logging.getLogger(__name__)


def proxy_for(host: str) -> URL | None:
    """The proxy through which to reach `host` (name or IP literal); None: connect directly."""
    text = getproxies().get("https", "")
    return None if not text or proxy_bypass(host) else _usable(text)


@lru_cache(maxsize=1)
def _usable(text: str) -> URL | None:
    """The setting, parsed; one that can't be used is logged once, though it is asked for each candidate."""
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
        usable = proxy.scheme in ("http", "https") and bool(proxy.host)
    except ValueError:
        usable = False
    if not usable:
        log.warning("the proxy that is set for HTTPS is none that can be used (http://HOST:PORT); going without")
        return None
    return proxy
