"""The HTTP proxy that a computer is set to use for HTTPS: HTTPS_PROXY and NO_PROXY, or the system's own settings.

What finds it is Python's; used where everything goes by HTTPS alone (overlay/http/tunnel.py), for many such places let
nothing out but through their proxy.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from urllib.request import getproxies, proxy_bypass

from yarl import URL

log = logging.getLogger(__name__)


def proxy_for(host: str) -> URL | None:
    """The proxy by which `host` (name or IP literal) is to be reached, or None: straight there."""
    text = getproxies().get("https", "")
    return None if not text or proxy_bypass(host) else _usable(text)


@lru_cache(maxsize=1)
def _usable(text: str) -> URL | None:
    """What is set, read and, should it be of no use, complained of once: every node that is tried asks."""
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
        usable = proxy.scheme in ("http", "https") and bool(proxy.host)
    except ValueError:
        usable = False
    if not usable:
        log.warning("the proxy that is set for HTTPS is none that can be used (http://HOST:PORT); going without")
        return None
    return proxy
