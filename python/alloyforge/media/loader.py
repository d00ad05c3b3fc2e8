"""Where media may come from: one loader, two policies.

*Local* serves the caller's own Python: files that the process may read and addresses that the caller
wrote. *Request* serves what arrives over a network, where an address is somebody else's wish: `data:`
alone, unless hosts are allowed by name. Then every address that a host resolves to must be globally
routable, the connection goes to one of those that were checked, redirects are followed by hand and
checked again, and no proxy is asked. No error repeats an address, a path or a body.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import ipaddress
import os
import re
import socket
import ssl
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote_to_bytes, urljoin, urlsplit

from alloyforge.errors import media_error
from alloyforge.media.images import MAX_BYTES

MAX_SECONDS = 30.0
"""Seconds that fetching one item may take."""

MAX_REDIRECTS = 3
"""Redirects that are followed."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-\s]*={0,2}\s*")


@dataclass(frozen=True)
class Loader:
    """Fetches items under one policy.

    Args:
        hosts: Hosts that may be asked over http and https, by name; `None` for any.
        has_private_hosts: Whether hosts may have addresses that are not globally routable.
        has_files: Whether paths and `file:` are read.
        root: A folder that files must lie in; `None` for anywhere.
    """

    hosts: frozenset[str] | None = frozenset()
    has_private_hosts: bool = False
    has_files: bool = False
    root: Path | None = None

    def fetch(self, address: str, item: str) -> bytes:
        """The bytes at `address`.

        Args:
            address: `data:`, and what the policy allows of `http:`, `https:`, `file:` and plain paths.
            item: What errors call it.

        Raises:
            MediaError: an address that the policy does not allow, that cannot be reached in time, or
                whose contents are too large.
        """
        if address[:5].lower() == "data:":
            return _data(address, item)
        try:
            parts = urlsplit(address)
            scheme = parts.scheme.lower()
        except ValueError:
            raise media_error(item, "has an address that cannot be read") from None
        if scheme in ("http", "https"):
            return self._http(address, item)
        if scheme == "file" and self.has_files and parts.netloc in ("", "localhost"):
            return self._file(os.fsdecode(unquote_to_bytes(parts.path)), item)
        if self.has_files and len(scheme) < 2:
            return self._file(address, item)
        raise media_error(item, "has an address of a kind that is not allowed")

    def _file(self, path: str, item: str) -> bytes:
        try:
            # Both sides canonical, so that no link leads out; a link itself is not followed.
            asked = Path(path)
            real = asked.resolve(strict=True)
            if self.root is not None and (
                not real.is_relative_to(self.root.resolve(strict=True)) or _has_link(asked, self.root)
            ):
                raise media_error(item, "lies outside what may be read")
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            handle = os.open(real, flags | getattr(os, "O_CLOEXEC", 0))
            with open(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise media_error(item, "is no regular file")
                data = file.read(MAX_BYTES + 1)
        except (OSError, ValueError, RuntimeError):
            raise media_error(item, "cannot be read") from None
        if len(data) > MAX_BYTES:
            raise media_error(item, f"is larger than {MAX_BYTES >> 20} MiB")
        return data

    def _http(self, address: str, item: str) -> bytes:
        deadline = time.monotonic() + MAX_SECONDS
        for _ in range(MAX_REDIRECTS + 1):
            try:
                parts = urlsplit(address)
                port = parts.port
            except ValueError:
                raise media_error(item, "has an address that cannot be read") from None
            if parts.scheme.lower() not in ("http", "https") or parts.username or parts.password:
                raise media_error(item, "has an address of a kind that is not allowed")
            host = (parts.hostname or "").rstrip(".").lower()
            if not host or (self.hosts is not None and host not in self.hosts):
                raise media_error(item, "has an address at a host that is not allowed")
            found = self._ask(parts, host, port, deadline, item)
            if isinstance(found, bytes):
                return found
            address = urljoin(address, found)
        raise media_error(item, f"is behind more than {MAX_REDIRECTS} redirects")

    def _ask(
        self, parts: SplitResult, host: str, port: int | None, deadline: float, item: str
    ) -> bytes | str:
        """The body, or where a redirect leads."""
        is_secure = parts.scheme.lower() == "https"
        port = port or (443 if is_secure else 80)
        try:
            resolved = _resolve(host, port, deadline)
            if not resolved or not (self.has_private_hosts or all(_is_global(a) for a in resolved)):
                raise media_error(item, "has an address at a host that is not allowed")
            connection = _Pinned(host, port, resolved[0], is_secure, deadline)
            with contextlib.closing(connection):
                path = parts.path or "/"
                target = f"{path}?{parts.query}" if parts.query else path
                connection.request("GET", target, headers={"Accept": "*/*", "Connection": "close"})
                answer = connection.getresponse()
                if answer.status in (301, 302, 303, 307, 308):
                    return answer.getheader("Location") or ""
                if answer.status != 200:
                    raise media_error(item, f"could not be fetched: status {answer.status}")
                length = answer.getheader("Content-Length") or "0"
                if not length.isdecimal() or int(length) > MAX_BYTES:
                    raise media_error(item, f"is larger than {MAX_BYTES >> 20} MiB")
                return _read(answer, connection, deadline, item)
        except (OSError, http.client.HTTPException, ValueError):
            raise media_error(item, "could not be fetched") from None


LOCAL = Loader(hosts=None, has_private_hosts=True, has_files=True)
"""The policy for the caller's own Python."""


def request_loader(hosts: Iterable[str] = (), root: str | os.PathLike[str] | None = None) -> Loader:
    """The policy for what arrives over a network.

    Args:
        hosts: Hosts that may be asked over http and https.
        root: A folder whose files may be read; none where nothing is said.
    """
    names = frozenset(host.rstrip(".").lower() for host in hosts)
    return Loader(hosts=names, has_files=root is not None, root=None if root is None else Path(root))


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was checked, whatever the host resolves to by now."""

    def __init__(self, host: str, port: int, address: str, is_secure: bool, deadline: float) -> None:
        super().__init__(host, port, timeout=_left(deadline))
        self._address = address
        self._is_secure = is_secure

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._is_secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _read(answer: http.client.HTTPResponse, connection: _Pinned, deadline: float, item: str) -> bytes:
    data = bytearray()
    while True:
        if connection.sock is not None:
            connection.sock.settimeout(_left(deadline))
        _left(deadline)
        part = answer.read1(1 << 16)
        if not part:
            return bytes(data)
        data += part
        if len(data) > MAX_BYTES:
            raise media_error(item, f"is larger than {MAX_BYTES >> 20} MiB")


def _resolve(host: str, port: int, deadline: float) -> list[str]:
    """All addresses of `host`."""
    _left(deadline)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _is_global(address: str) -> bool:
    """Whether `address`, and whatever it carries inside, is globally routable and no group."""
    try:
        ip = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    inner: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [ip]
    if isinstance(ip, ipaddress.IPv6Address):
        carried = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        inner += [one for one in carried if one is not None]
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF))
    mapped = isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None
    checked = inner[1:] if mapped else inner
    return all(one.is_global and not one.is_multicast and not one.is_reserved for one in checked)


def _has_link(path: Path, root: Path) -> bool:
    """Whether a step of `path` below `root` is a symbolic link."""
    path = path if path.is_absolute() else Path.cwd() / path
    steps = [path, *path.parents]
    return any(step.is_symlink() for step in steps if step.is_relative_to(root) and step != root)


def _data(address: str, item: str) -> bytes:
    """The body of a `data:` address, whose length is checked before it is decoded."""
    head, comma, body = address[5:].partition(",")
    if not comma:
        raise media_error(item, "has a `data:` address without data")
    is_base64 = head.rstrip().lower().endswith("base64")
    # Four characters stand for three bytes; a percent sign and two digits for one.
    if len(body) * 3 // (4 if is_base64 else 1) > MAX_BYTES * (1 if is_base64 else 3):
        raise media_error(item, f"is larger than {MAX_BYTES >> 20} MiB")
    raw = unquote_to_bytes(body) if "%" in body or not is_base64 else body.encode("ascii", "replace")
    if not is_base64:
        return raw
    if not _BASE64.fullmatch(raw):
        raise media_error(item, "is not base64")
    try:
        compact = b"".join(raw.split()).translate(bytes.maketrans(b"-_", b"+/"))
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise media_error(item, "is not base64") from None
