"""`--dry-run` of a study: checks what the study would check, counts its work, and writes nothing."""

from typing import Any

from steerlens.cli.console import say
from steerlens.cli.models import lines_of_dry_run
from steerlens.cli.planned import Planner
from steerlens.cli.study.command_line import command_line
from steerlens.cli.work import tell
from steerlens.studies import Study
from steerlens.studies.shared import StudyArguments, check_folder


def dry_run(study: Study[Any, Any], arguments: StudyArguments) -> int:
    """Prepares a study without running it, prints its work with estimates, and returns the exit code.

    Raises:
        UsageError: as the study itself.
    """
    planner = Planner()
    experiment = study.prepare(arguments, command_line(study.name, arguments), planner.load)
    # The identity contains hashes of the weights, which a stand-in does not have.
    resumes = check_folder(arguments.out, experiment.identity() if planner.is_loaded else None)
    work = experiment.work()
    rates = planner.rates(next(iter(work.decoded), None))
    settings = arguments.settings
    if settings.encoder is None and not settings.json:
        for line in lines_of_dry_run(settings.model, local=settings.local is not None):
            say(line)
    return tell(work, rates, arguments.out, resumes=resumes, json=arguments.settings.json)
