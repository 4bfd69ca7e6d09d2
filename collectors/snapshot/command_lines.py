"""QEMU command lines without what must not be in a recording: passwords, keys, guest secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ("HIDDEN", "without_secrets")

HIDDEN = "***"
_NAMES = (
    r"(?:[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|credential|cookie|auth)[\w.-]*|key|pin)"
)
_PAIR = re.compile(rf"(?i)(?<![\w.-])({_NAMES})=((?:,,|[^,;&\s:])+)")
_JSON = re.compile(rf'(?i)("{_NAMES}"\s*:\s*)("(?:[^"\\]|\\.)*"|[^,}}\s]+)')
_URL = re.compile(r"(\w[\w+.-]*://)[^/@\s]+@")
_WHOLE = {
    "-fw_cfg": re.compile(r"(?i)\b(string)=((?:,,|[^,])+)"),
    "-smbios": re.compile(r"(?i)\b(value)=((?:,,|[^,])+)"),
}
"""Options whose text is for the guest, in what name."""
_SECRET_OBJECT = re.compile(r'(?i)^(?:qom-type=)?secret|"qom-type"\s*:\s*"secret|^tls-cipher')
_DATA = re.compile(r'(?i)\b(data|iv)=((?:,,|[^,])+)|("(?:data|iv)"\s*:\s*)"(?:[^"\\]|\\.)*"')
_ALLOWED = re.compile(r"(?i)^(password-secret|key-secret|secret|tls-creds|authz|tls-authz)$")
"""Names of secret objects are no secrets."""


def without_secrets(words: Iterable[str]) -> list[str]:
    """The words of a command line, with secrets replaced by :data:`HIDDEN`."""
    found = []
    before = ""
    for word in words:
        option = "-" + before.lstrip("-")
        word = _PAIR.sub(_hidden_pair, word)
        word = _JSON.sub(_hidden_member, word)
        word = _URL.sub(rf"\1{HIDDEN}@", word)
        if option in _WHOLE:
            word = _WHOLE[option].sub(rf"\1={HIDDEN}", word)
        if option == "-object" and _SECRET_OBJECT.search(word):
            word = _DATA.sub(_hidden_data, word)
        if option == "-append":
            word = re.sub(r"(?i)([\w.]*(?:key|pass|token|secret)[\w.]*)=\S+", rf"\1={HIDDEN}", word)
        found.append(word)
        before = word
    return found


def _hidden_pair(match: re.Match[str]) -> str:
    if _ALLOWED.match(match[1]) or match[2] in ("on", "off"):
        return match[0]
    return f"{match[1]}={HIDDEN}"


def _hidden_member(match: re.Match[str]) -> str:
    name = match[1].split('"')[1]
    if _ALLOWED.match(name) or match[2] in ("true", "false"):
        return match[0]
    return f'{match[1]}"{HIDDEN}"'


def _hidden_data(match: re.Match[str]) -> str:
    return f"{match[1]}={HIDDEN}" if match[1] else f'{match[3]}"{HIDDEN}"'
