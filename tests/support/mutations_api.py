"""Faults of the API's ways in, and of what GitHub runs."""

from tests.support.mutations import Mutation, change, remove, rewrite

DOORS = [
    Mutation(
        fault="the load balancer faces the internet",
        where="api/LoadBalancer",
        caught_by="load balancer",
        seed=change(lambda p: p.update(Scheme="internet-facing")),
    ),
    Mutation(
        fault="nobody logs who called",
        where="api/LoadBalancer",
        caught_by="load balancer",
        seed=change(lambda p: p.pop("LoadBalancerAttributes")),
    ),
    Mutation(
        fault="agents are asked for their health at another path",
        where="api/LoadBalancerAgents",
        caught_by="agents health",
        seed=change(lambda p: p.update(HealthCheckPath="/health")),
    ),
    Mutation(
        fault="no listener uses the agents' target group, so that nobody asks them",
        where="api/LoadBalancerAgentsHealth",
        caught_by="agents health",
        says="api/LoadBalancerAgents",
        seed=remove,
    ),
    Mutation(
        fault="a route of the HTTP API asks nobody who calls",
        where="api/HttpApiDefaultRoute",
        caught_by="http api",
        seed=change(lambda p: p.update(AuthorizationType="NONE")),
    ),
    Mutation(
        fault="the HTTP API has no route",
        where="api/HttpApiDefaultRoute",
        caught_by="http api",
        says="api",
        seed=remove,
    ),
    Mutation(
        fault="the HTTP API takes any number of requests",
        where="api/HttpApiStage",
        caught_by="http api",
        seed=change(lambda p: p.pop("DefaultRouteSettings")),
    ),
    Mutation(
        fault="the API's function runs a Python that is gone",
        where="api/ApiFunction",
        caught_by="functions",
        seed=change(lambda p: p.update(Runtime="python3.7")),
    ),
    Mutation(
        fault="the API's function can use up the account's concurrency",
        where="api/ApiFunction",
        caught_by="functions",
        seed=change(lambda p: p.pop("ReservedConcurrentExecutions")),
    ),
]

WORKFLOWS = [
    Mutation(
        fault="an action is pinned by a tag that can move",
        where="workflow/pull-request.yml",
        caught_by="workflows",
        seed=rewrite(r"actions/checkout@[0-9a-f]{40} # v[\d.]+", "actions/checkout@v5"),
    ),
    Mutation(
        fault="a stranger's pull request runs with the repository's rights",
        where="workflow/pull-request.yml",
        caught_by="workflows",
        seed=rewrite(r"^  pull_request:$", "  pull_request_target:"),
    ),
    Mutation(
        fault="the deployment cannot ask for a token",
        where="workflow/deploy.yml",
        caught_by="workflows",
        seed=rewrite(r"^      id-token: write.*\n", ""),
    ),
    Mutation(
        fault="a branch's name is run as a command",
        where="workflow/pull-request.yml",
        caught_by="workflows",
        seed=rewrite(r"run: make check$", "run: make check ${{ github.head_ref }}"),
    ),
    Mutation(
        fault="a workflow has every right",
        where="workflow/pull-request.yml",
        caught_by="workflows",
        seed=rewrite(r"^permissions:\n  contents: read\n", ""),
    ),
]

MUTATIONS = [*DOORS, *WORKFLOWS]
