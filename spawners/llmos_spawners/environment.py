"""What every server gets whichever spawner starts it: addresses, a token for models, and an end to its tokens.

The Hub revokes nothing that a spawner has minted, and after its own restart it no longer knows the
server's own token either. So tokens are found by their note, which the database keeps.
"""

from __future__ import annotations

from typing import Any, Final

from llmos.names import slug

__all__ = ["INVOKE_SCOPES", "invoke_note", "mint_invoke_token", "platform_environment", "revoke_tokens", "slug"]

INVOKE_SCOPES: Final = ("custom:llmos:invoke",)
"""All that the token in ``OPENAI_API_KEY`` may: it is in the environment of everything the person starts."""


def invoke_note(user: str, server: str) -> str:
    """The note on the token that a server gets for models."""
    return f"llmos-invoke {user}/{server}"


def _notes(spawner: Any) -> set[str]:
    """The notes of every token that was made for this server: ours, and the Hub's for the server itself."""
    base_url = spawner.user.base_url.rstrip("/") + "/" + (f"{spawner.name}/" if spawner.name else "")
    return {invoke_note(spawner.user.name, spawner.name), f"Server at {base_url}"}


def mint_invoke_token(spawner: Any) -> str:
    """A token with which the server's owner can call models and nothing else."""
    _delete(spawner, {invoke_note(spawner.user.name, spawner.name)})  # left by a Hub that died during a start
    token: str = spawner.user.new_api_token(
        note=invoke_note(spawner.user.name, spawner.name), scopes=list(INVOKE_SCOPES)
    )
    return token


def revoke_tokens(spawner: Any) -> int:
    """Delete every token that was made for this server; how many there were."""
    return _delete(spawner, _notes(spawner))


def _delete(spawner: Any, notes: set[str]) -> int:
    db = spawner.db
    tokens = [token for token in spawner.user.orm_user.api_tokens if token.note in notes]
    for token in tokens:
        db.delete(token)
    db.commit()
    return len(tokens)


def platform_environment(*, openai_base_url: str, llmos_url: str, token: str) -> dict[str, str]:
    """The variables by which an unmodified ``openai.OpenAI()`` and ``llmos.Client()`` work without arguments."""
    return {"OPENAI_BASE_URL": openai_base_url, "OPENAI_API_KEY": token, "LLMOS_URL": llmos_url}
