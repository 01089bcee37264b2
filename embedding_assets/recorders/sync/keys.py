"""The keys of Fathom's API, each with the name that people and tables know it by."""

import re
from dataclasses import dataclass

from pydantic import SecretStr

from embedding_assets.engine.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,60}")


@dataclass(frozen=True, slots=True)
class Key:
    """One user's key: it sees what that user recorded, and what was shared with them."""

    name: str
    secret: SecretStr


def parse_keys(setting: str) -> tuple[Key, ...]:
    """The keys of FATHOM_API_KEYS, written as `ann=secret bob=secret`.

    Raises:
        ConfigurationError: a part is no name and secret, or a name comes twice. It quotes no part,
            as any may be a secret.
    """
    keys: dict[str, Key] = {}
    for number, part in enumerate(re.split(r"[\s,]+", setting.strip(" \t\r\n,")), 1):
        name, _, secret = part.partition("=")
        if not secret.strip("=") or not secret.isascii() or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"FATHOM_API_KEYS: part {number} is not of the form name=key: write, for instance,"
                " ann=THE_KEY bob=THE_OTHER_KEY"
            )
        if name in keys:
            raise ConfigurationError(f"FATHOM_API_KEYS: two keys have the name {name}")
        keys[name] = Key(name, SecretStr(secret))
    return tuple(keys.values())
