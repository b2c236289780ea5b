"""``trainshed doctor``: versions, devices, memory, and what is missing. The network is never touched."""

import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path

import click

from trainshed.cli.examples import ExampleCommand
from trainshed.cli.tables import size, table

_DISTRIBUTION = "trainshed"
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


@click.command(
    "doctor",
    cls=ExampleCommand,
    examples=("trainshed doctor",),
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Check this machine and installation; the exit code is 1 when something required is missing."""
    click.echo(
        f"trainshed {_version(_DISTRIBUTION)} on Python {platform.python_version()}, {platform.platform()}"
    )
    missing = _packages()
    _extras()
    missing += _devices()
    _machine()
    _offline()
    if missing:
        click.secho(f"\nmissing: {', '.join(missing)}", fg="red", err=True)
        click.echo("  fix:   pip install trainshed", err=True)
        ctx.exit(1)
    click.echo("\nnothing required is missing")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> dict[str, list[str]]:
    """Return the packages of each extra of this package; the required ones under the empty name."""
    found: dict[str, list[str]] = {"": []}
    for line in metadata.requires(_DISTRIBUTION) or ():
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", line)
        if name and name[0] != _DISTRIBUTION:
            found.setdefault(extra[1] if extra else "", []).append(name[0])
    return found


def pinned() -> dict[str, str]:
    """Return the versions that ``constraints.txt`` of the current directory pins, if there is one."""
    path = Path("constraints.txt")
    if not path.is_file():
        return {}
    lines = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower(): version for name, version in lines}


def _packages() -> list[str]:
    pins = pinned()
    rows, missing = [], []
    for name in sorted(requirements()[""]):
        version, pin = _version(name), pins.get(name.lower())
        if version is None:
            missing.append(name)
        # a local part such as +cpu names the build, not another version
        same = version is not None and version.partition("+")[0] == pin
        note = "" if pin is None or same else f"constraints.txt has {pin}"
        rows.append([name, version or "MISSING", note])
    click.echo("\n" + table(["package", "version", ""], rows))
    return missing


def _extras() -> None:
    rows = []
    for extra, names in sorted(requirements().items()):
        if extra in ("", "all", "dev", "docs"):
            continue
        absent = [name for name in names if _version(name) is None]
        rows.append([extra, f"pip install 'trainshed[{extra}]'" if absent else "installed"])
    click.echo("\n" + table(["extra", ""], rows))


def _devices() -> list[str]:
    """Print what computes here; only now is torch imported."""
    click.echo("")
    try:
        import torch
    except ImportError as error:
        click.secho(f"torch cannot be imported: {error}", fg="red", err=True)
        return ["torch"]
    from trainshed.models.precision import cpu_has_bf16

    bf16 = "bfloat16 in hardware" if cpu_has_bf16() else "no bfloat16 in hardware"
    click.echo(f"cpu      {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, {bf16}")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
        click.echo(f"cuda:{index}   {properties.name}, {size(properties.total_memory)}, {bf16}")
    if torch.backends.mps.is_available():
        click.echo("mps      available")
    return []


def _machine() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    click.echo(f"memory   {size(total)}{_available_memory()}")
    click.echo(f"disk     {size(shutil.disk_usage(Path.cwd()).free)} free at {Path.cwd()}")


def _available_memory() -> str:
    path = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", path.read_text()) if path.exists() else None
    return f", {size(int(found[1]) * 1024)} available" if found else ""


def _offline() -> None:
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "huggingface"
    )
    cache = Path(os.environ.get("HF_HUB_CACHE", os.path.join(home, "hub")))
    there = "" if cache.is_dir() else " (not there yet)"
    click.echo(f"hub      cache {cache}{there}")
    flags = [name for name in _OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    click.echo(
        "         offline: " + (", ".join(flags) if flags else "no; names of the hub would be downloaded")
    )
