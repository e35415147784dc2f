"""`gfm doctor`: whether this machine, and a run on it, will work."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="YAML file of a run, to be checked as well.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a value; repeatable.")
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(min=1), help="Machines of that run.")
@click.option("--per-node", default=1, show_default=True, type=click.IntRange(min=1), help="Its processes on each.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(path: Path | None, overrides: tuple[str, ...], nodes: int, per_node: int, as_json: bool) -> int:
    """Check versions, devices, compiler, network, disk and clock; with --config also data, credentials and topology.

    Exits 0 when nothing fails; warnings are no failure.
    """
    from gfm_pipeline.doctor import machine, software
    from gfm_pipeline.doctor.finding import Check, report, run_checks, worst

    checks: list[tuple[str, Check]] = [
        ("python", software.check_python),
        ("packages", software.check_packages),
        ("compiler", software.check_compiler),
        ("operators", software.check_operators),
        ("devices", machine.check_devices),
        ("memory", machine.check_memory),
        ("clock", machine.check_clock),
        ("network", machine.check_network),
    ]
    if path is not None:
        from gfm_pipeline.config import load_config
        from gfm_pipeline.doctor import run
        from gfm_pipeline.train.config import TrainConfig

        config = load_config(path, TrainConfig, overrides)
        checks += [
            ("topology", partial(run.check_fit, config, nodes * per_node, per_node)),
            ("collections", partial(run.check_collections, config)),
            ("run folder", partial(run.check_run_folder, config)),
        ]
    findings = run_checks(checks)
    click.echo(json.dumps([finding._asdict() for finding in findings], indent=1) if as_json else report(findings))
    return 1 if worst(findings) == "failure" else 0
