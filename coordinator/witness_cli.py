"""`filmroom-coordinator witness`: watch that the logs of sites only grow. Needs no coordinator's folder."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.app import now
from coordinator.witness import Answer, Witness, create_witness

if TYPE_CHECKING:
    from coordinator.listener import Application, Event, Receive, Send

witness_app = typer.Typer(no_args_is_help=True, help="A witness: it cosigns logs that only grow.")
out = Console(highlight=False, soft_wrap=True)


@witness_app.callback()
def choose_home(
    context: typer.Context,
    home: Annotated[Path, typer.Option(help="The witness's own folder.")] = Path("witness-home"),
) -> None:
    """Watch the logs of sites from outside of them."""
    context.obj = home


@witness_app.command()
def init(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="The witness's name, such as example.org/witness.")],
) -> None:
    """Make the witness's folder and its key; print the key that sites pin."""
    print(create_witness(context.obj, name).vkey)


@witness_app.command()
def trust(context: typer.Context, vkey: str) -> None:
    """Watch the log with this key from now on."""
    out.print(f"{Witness(context.obj).trust(vkey, now())} is watched")


@witness_app.command()
def show(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False
) -> None:
    """Print this witness's key and the logs it watches; exit code 1 if a log signed two histories."""
    witness = Witness(context.obj)
    known = witness.known()
    if as_json:
        out.print_json(data={"vkey": witness.vkey, "logs": [asdict(log) for log in known]})
    else:
        print(witness.vkey)
        for log in known:
            seen = "nothing cosigned" if log.size is None else f"{log.size} entries at {log.at}"
            print(f"  {log.vkey}  {seen}{'  SIGNED TWO HISTORIES' if log.forks else ''}")
    if any(log.forks for log in known):
        raise typer.Exit(1)


@witness_app.command()
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9445,
) -> None:
    """Answer POST /add-checkpoint until interrupted; plain HTTP, so beyond this machine only behind TLS."""
    import uvicorn  # noqa: PLC0415 -- no other command of a witness needs it

    from consent import MAX_REQUEST_BYTES  # noqa: PLC0415 -- as above
    from coordinator.listener import Limited  # noqa: PLC0415 -- as above

    witness = Witness(context.obj)
    limited = Limited(_application(witness), MAX_REQUEST_BYTES, None)
    print(f"{witness.name} listens on {host}, port {port}", flush=True)
    uvicorn.run(limited, host=host, port=port, log_config=None, access_log=False, server_header=False, ws="none")


def _application(witness: Witness) -> Application:
    async def answer_one(scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if (scope["method"], scope["path"]) != ("POST", "/add-checkpoint"):
            answer = Answer(404)
        else:
            body = (await receive())["body"]
            answer = await asyncio.to_thread(witness.add_checkpoint, body, now())
        content = answer.body.encode()
        headers = [(b"content-type", answer.kind.encode()), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return answer_one
