"""`embridge release key`: who may sign releases, and how that is changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

    from embridge_cloud.registry import Ceremony, Draft

app = typer.Typer(
    help="Keys of the registry: who may sign, threshold, rotation, root keys on other machines.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Registry = Annotated[
    Path | None, typer.Option("--registry", help="The registry's folder; by default that of the settings.")
]
Secret = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File whose first line is the passphrase; else EMBRIDGE_KEY_PASSPHRASE."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

PASSPHRASE = "EMBRIDGE_KEY_PASSPHRASE"  # noqa: S105
_SHOWN = 16


@app.command("list")
def list_keys(registry: Registry = None, as_json: Json = False) -> None:
    """List the keys that may sign, where they are, and the root on its way, if any."""
    desk = _desk(registry)
    root, holders, draft = desk.root(), desk.holders(), desk.draft()
    if as_json:
        body = {
            "version": root.version,
            "expires": root.expires.isoformat(),
            "threshold": {role: root.roles[role].threshold for role in ("root", "targets", "snapshot", "timestamp")},
            "keys": [{"id": h.keyid, "role": h.role, "here": h.at, "locked": h.locked} for h in holders],
            "draft": None if draft is None else _draft_body(draft),
        }
        typer.echo(json.dumps(body, indent=2))
        return
    typer.echo(f"root {root.version}, ends {root.expires:%Y-%m-%d}, {root.roles['root'].threshold} signatures a root")
    for holder in holders:
        where = f"keys/{holder.at}" + (", under a passphrase" if holder.locked else "") if holder.at else "elsewhere"
        typer.echo(f"{holder.role:<10} {holder.keyid[:_SHOWN]}  {where}")
    if draft is not None:
        _tell(desk, draft)


@app.command()
def make(
    file: Annotated[Path, typer.Argument(help="The private key; its public half is written beside it, as .pub.")],
    passphrase_file: Secret = None,
    unprotected: Annotated[bool, typer.Option("--unprotected", help="Without a passphrase.")] = False,
) -> None:
    """Make a key on any machine; `add-root` takes its public half."""
    from securesystemslib.signer import CryptoSigner

    from embridge_cloud.registry.keys import public_pem, write_private
    from embridge_shared.archive import write_atomically

    signer = CryptoSigner.generate_ed25519()
    write_private(file, signer, None if unprotected else _passphrase(passphrase_file, confirm=True))
    public = file.with_suffix(".pub")
    write_atomically(public, public_pem(signer))
    typer.echo(f"{signer.public_key.keyid}  {public}")


@app.command("export-public")
def export_public(key: Annotated[Path, typer.Argument(help="A private key.")], passphrase_file: Secret = None) -> None:
    """Print the public half of a private key."""
    from embridge_cloud.registry.keys import public_pem

    typer.echo(public_pem(_open(key, passphrase_file)).decode().rstrip())


@app.command("add-root")
def add_root(
    public: Annotated[Path, typer.Argument(help="Public half of the key, as `make` writes it.")],
    instead_of: Annotated[str, typer.Option(help="Id of the root key it replaces.")] = "",
    registry: Registry = None,
) -> None:
    """Draft a root that another key may sign too."""
    from embridge_cloud.registry.keys import read_public

    desk = _desk(registry)
    _tell(desk, desk.add_root(read_public(public), instead_of=instead_of))


@app.command()
def retire(
    keyid: Annotated[str, typer.Argument(help="Id of a root key, or its beginning.")], registry: Registry = None
) -> None:
    """Draft a root that a key signs no more."""
    desk = _desk(registry)
    _tell(desk, desk.retire_root(keyid))


@app.command()
def threshold(
    count: Annotated[int, typer.Argument(help="Signatures a root needs.", min=1)], registry: Registry = None
) -> None:
    """Draft a root that needs another number of signatures."""
    desk = _desk(registry)
    _tell(desk, desk.threshold(count))


@app.command()
def rotate(
    role: Annotated[str, typer.Argument(help="targets, snapshot or timestamp.")], registry: Registry = None
) -> None:
    """Draft a root with a new key for a role; the key is made beside the registry."""
    desk = _desk(registry)
    _tell(desk, desk.rotate(role))


@app.command()
def renew(registry: Registry = None) -> None:
    """Draft the same root with a new term."""
    desk = _desk(registry)
    _tell(desk, desk.renew())


@app.command("sign-root")
def sign_root(
    draft: Annotated[Path, typer.Argument(help="A copy of next.root.json; the signature is added to it.")],
    key: Annotated[Path, typer.Option("--key", help="A private root key.")],
    passphrase_file: Secret = None,
) -> None:
    """Sign a drafted root, on whatever machine the key is."""
    from embridge_cloud.registry.drafts import parse_draft, sign_draft
    from embridge_shared.errors import OperatorError

    if not draft.is_file():
        raise OperatorError(f"{draft} is not there.", hint="Copy next.root.json from the registry's folder.")
    root = parse_draft(draft.read_bytes()).signed
    typer.echo(f"root {root.version}, ends {root.expires:%Y-%m-%d}; read it before you hand it on:", err=True)
    for role, named in root.roles.items():
        typer.echo(f"  {role:<10} {named.threshold} of {', '.join(i[:_SHOWN] for i in named.keyids)}", err=True)
    (keyid,) = sign_draft(draft, [_open(key, passphrase_file)])
    typer.echo(f"signed by {keyid[:_SHOWN]}", err=True)
    if keyid not in root.roles["root"].keyids:
        typer.echo("It is no root key of this draft: it counts only if it is one of the root in force.", err=True)


@app.command()
def apply(
    draft: Annotated[Path, typer.Argument(help="A copy of next.root.json that was signed.")], registry: Registry = None
) -> None:
    """Take signatures from a copy of the draft; enough of them put it in force."""
    from embridge_shared.errors import OperatorError

    if not draft.is_file():
        raise OperatorError(f"{draft} is not there.", hint="Name the copy that came back signed.")
    desk = _desk(registry)
    _tell(desk, desk.apply(draft.read_bytes()))


@app.command()
def discard(registry: Registry = None) -> None:
    """Drop the root on its way, and keys that were made for it."""
    held = _desk(registry).discard()
    typer.echo("The draft is gone." if held else "There was no draft.", err=True)


@app.command("move-root")
def move_root(
    folder: Annotated[Path, typer.Argument(help="A folder on another medium.")],
    keep: Annotated[int, typer.Option(help="So many stay here.", min=0)] = 0,
    passphrase_file: Secret = None,
    unprotected: Annotated[bool, typer.Option("--unprotected", help="Without a passphrase.")] = False,
    registry: Registry = None,
) -> None:
    """Move private root keys away from this machine, under a passphrase."""
    desk = _desk(registry)
    secret = None if unprotected else _passphrase(passphrase_file, confirm=True)
    for path in desk.move_roots(folder, secret, keep=keep):
        typer.echo(str(path))
    typer.echo("Copy each to a place of its own: whoever has enough of them decides what edges trust.", err=True)


def _desk(registry: Path | None) -> Ceremony:
    from embridge_cloud.registry import Ceremony
    from embridge_shared import settings
    from embridge_shared.clock import SystemClock

    return Ceremony(registry or settings.load().cloud.state_dir / "registry", SystemClock())


def _open(key: Path, passphrase_file: Path | None) -> CryptoSigner:
    from embridge_cloud.registry.keys import is_locked, read_private

    return read_private(key, _passphrase(passphrase_file) if is_locked(key) else None)


def _passphrase(file: Path | None, *, confirm: bool = False) -> bytes:
    from embridge_shared.errors import OperatorError

    if file is not None:
        lines = file.read_text().splitlines() if file.is_file() else []
        secret = lines[0] if lines else ""
    else:
        secret = os.environ.get(PASSPHRASE, "")
        if not secret:
            secret = str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))
    if not secret:
        raise OperatorError(
            "there is no passphrase.", hint="Write it into the file's first line, or use --unprotected."
        )
    return secret.encode()


def _tell(desk: Ceremony, draft: Draft) -> None:
    if draft.done:
        typer.echo(f"Root {draft.version} is in force until {draft.expires:%Y-%m-%d}.", err=True)
        return
    typer.echo(
        f"Root {draft.version} is drafted and lacks {draft.missing} signatures. Copy {desk.draft_file} to where a root "
        "key is, `embridge release key sign-root COPY --key KEY` there, and `embridge release key apply COPY` here.",
        err=True,
    )
    for keyid in draft.unsigned:
        typer.echo(f"  may sign: {keyid[:_SHOWN]}", err=True)


def _draft_body(draft: Draft) -> dict[str, object]:
    return {
        "version": draft.version,
        "expires": draft.expires.isoformat(),
        "missing": draft.missing,
        "may_sign": list(draft.unsigned),
    }
