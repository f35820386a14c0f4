"""Every check of a whole deployment by its name: what it demands is its function's first line."""

from collections.abc import Callable, Iterable

from tests.support import (
    checks_api,
    checks_functions,
    checks_image,
    checks_machines,
    checks_metrics,
    checks_parts,
    checks_policies,
    checks_scaling,
    checks_state,
    checks_user_data,
    checks_workflows,
)
from tests.support.deployment import Deployment
from tests.support.findings import Finding

Check = Callable[[Deployment], Iterable[Finding]]

_ALL: tuple[Check, ...] = (
    checks_parts.parts,
    checks_state.queues,
    checks_state.at_rest,
    checks_state.in_transit,
    checks_state.log_groups,
    checks_policies.policies,
    checks_policies.policy_resources,
    checks_policies.takers_of_messages,
    checks_machines.guard_rules,
    checks_machines.machine_images,
    checks_machines.groups,
    checks_scaling.scaling_rules,
    checks_scaling.scaling_moves,
    checks_functions.functions,
    checks_functions.controller,
    checks_functions.sweeper,
    checks_api.load_balancer,
    checks_api.agents_health,
    checks_api.http_api,
    checks_image.recipe,
    checks_image.pinned,
    checks_image.components,
    checks_image.shipped_logs,
    checks_image.pipeline,
    checks_image.results,
    checks_user_data.user_data,
    checks_user_data.boot_steps,
    checks_metrics.metric_names,
    checks_metrics.dashboards,
    checks_metrics.alarms,
    checks_workflows.workflows,
)

CHECKS: dict[str, Check] = {check.__name__.replace("_", " "): check for check in _ALL}


def demands(name: str) -> str:
    """Return what a check demands, in one sentence."""
    (first, *_) = str(CHECKS[name].__doc__).splitlines()
    return first
