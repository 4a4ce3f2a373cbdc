"""`interp ablate`: the effect of ablating each head, stored in a run directory.

The same command resumes an unfinished run directory and leaves a finished one as it is.
"""

import typer

from interp.cli.command_from_spec import Request, print_location, run_command
from interp.cli.options import Settings
from interp.cli.performance_output import print_performance
from interp.cli.ranking_output import as_json, print_agreement, print_estimator, print_ranking
from interp.cli.terminal import Terminal
from interp.experiments.ablation import AblationSpec

OPTIONS = {
    "ablation": typer.Option(help="NAME[:option=value,...] of `interp ablations`: mean, or streaming:n_sink=4,n_recent=64."),
    "estimator": typer.Option(
        help="exact; attribution (gradient estimate); adaptive (gradient estimate, then exact for the top share)."
    ),
    "positions": typer.Option(help="Ablated positions: all, end, or a mark of the task."),
    "heads": typer.Option(help="Only these heads: L5H1,L2H3."),
    "layers": typer.Option(help="Only the heads of these layers: 0,2-4."),
    "pairs": typer.Option("--pairs", help="Also ablate every pair of the chosen heads."),
    "top_share": typer.Option(help="adaptive: share of the heads that is measured exactly."),
}


@run_command(AblationSpec, OPTIONS)
def ablate(terminal: Terminal, request: Request, settings: Settings = None) -> None:
    """Ablate every attention head, one at a time, and rank the heads by the effect on the metric.

    effect = metric(ablated) - metric(clean); negative = the head helped. --set n_shots=4 sets an option of the task.
    """
    if (run := request.run(request.prepare_task(settings))) is not None:
        print_performance(terminal, run.record)
        print_estimator(terminal, run.record)
        print_ranking(terminal, run.heads(), top=5)
        print_agreement(terminal, run)
        print_location(terminal, run, "prints all heads")
        terminal.emit(as_json(run))
