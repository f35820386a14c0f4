"""Faults of the image: its pipeline, its recipe, its components' documents."""

from typing import Any

from tests.support.mutations import Mutation, Properties, change, remove, rewrite

DRIVER, PYTHON = "component/WindowsGpuNvidiaDriver", "component/WindowsGpuPython"
AGENT_OF_CLOUDWATCH = "component/WindowsGpuCloudwatchAgent"
RECIPE, PIPELINE = "image/WindowsGpuRecipe", "image/WindowsGpuPipeline"


def _set(parameter: str, value: str, *, of: str) -> Any:
    """Return a fault that gives a component's parameter another value in the recipe."""

    def edit(properties: Properties) -> None:
        (found,) = (p for p in _parameters(properties, of) if p["Name"] == parameter)
        found["Value"] = [value]

    return change(edit)


def _parameters(properties: Properties, of: str) -> list[dict[str, Any]]:
    (found,) = (c["Parameters"] for c in properties["Components"] if of in str(c["ComponentArn"]))
    return list(found)


def _edit_component(properties: Properties, of: str, **values: Any) -> None:
    (found,) = (c for c in properties["Components"] if of in str(c["ComponentArn"]))
    found.update(values)


BUILD = [
    Mutation(
        fault="the recipe names a component that does not exist",
        where=RECIPE,
        caught_by="recipe",
        seed=change(lambda p: _edit_component(p, "Python", ComponentArn={"Fn::GetAtt": ["Pythn", "Arn"]})),
    ),
    Mutation(
        fault="a component is in no recipe",
        where=RECIPE,
        caught_by="recipe",
        says="image/WindowsGpuScanfleetAgent",
        seed=change(lambda p: p["Components"].pop(-2)),
    ),
    Mutation(
        fault="a component's version is a wildcard",
        where="image/WindowsGpuPython",
        caught_by="recipe",
        seed=change(lambda p: p.update(Version="1.0.x")),
    ),
    Mutation(
        fault="the image's root volume is not encrypted",
        where=RECIPE,
        caught_by="recipe",
        seed=change(lambda p: p["BlockDeviceMappings"][0]["Ebs"].update(Encrypted=False)),
    ),
    Mutation(
        fault="an installer is whatever is the latest",
        where=RECIPE,
        caught_by="pinned",
        seed=_set(
            "Url",
            "https://amazoncloudwatch-agent.s3.amazonaws.com/windows/amd64/latest/amazon-cloudwatch-agent.msi",
            of="Cloudwatch",
        ),
    ),
    Mutation(
        fault="an installer's address has no version",
        where=RECIPE,
        caught_by="pinned",
        seed=_set("Url", "https://www.python.org/ftp/python/python-amd64.exe", of="Python"),
    ),
    Mutation(
        fault="an installer's digest is unknown, and nothing else is checked",
        where=RECIPE,
        caught_by="pinned",
        seed=_set("Sha256", "unknown", of="Python"),
    ),
    Mutation(
        fault="a parameter's name has a typo in the recipe",
        where=RECIPE,
        caught_by="components",
        seed=change(lambda p: _parameters(p, "Python")[0].update(Name="Foldr")),
    ),
    Mutation(
        fault="boots' logs are shipped to a log group that nobody reads",
        where=RECIPE,
        caught_by="shipped logs",
        seed=_set("UserdataLogGroup", "/scanfleet/dev/user-data", of="Cloudwatch"),
    ),
    Mutation(
        fault="images ship the logs of a folder that nothing writes to",
        where=RECIPE,
        caught_by="shipped logs",
        seed=_set("LogFolder", r"C:\\ProgramData\\Scanfleet\\log", of="Cloudwatch"),
    ),
    Mutation(
        fault="the pipeline starts at other times than configured",
        where=PIPELINE,
        caught_by="pipeline",
        seed=change(lambda p: p["Schedule"].update(ScheduleExpression="cron(0 3 * * SUN *)")),
    ),
    Mutation(
        fault="images are not tested",
        where=PIPELINE,
        caught_by="pipeline",
        seed=change(lambda p: p["ImageTestsConfiguration"].update(ImageTestsEnabled=False)),
    ),
    Mutation(
        fault="the image's id is written where no fleet reads it",
        where="image/WindowsGpuDeliveryConfiguration",
        caught_by="results",
        seed=change(
            lambda p: p["Distributions"][0]["SsmParameterConfigurations"][0].update(
                ParameterName="/scanfleet/prod/ami/windows-gpu"
            )
        ),
    ),
    Mutation(
        fault="old images are kept for ever",
        where="image/WindowsGpuCleanUpTagged",
        caught_by="results",
        seed=change(lambda p: p.update(Status="DISABLED")),
    ),
    Mutation(
        fault="there is no pipeline",
        where=PIPELINE,
        caught_by="parts",
        says="AWS::ImageBuilder::ImagePipeline",
        seed=remove,
    ),
    Mutation(
        fault="a new release builds no image",
        where="image/WindowsGpuOnRelease",
        caught_by="pipeline",
        says="image/WindowsGpuPipeline",
        seed=remove,
    ),
]

DOCUMENTS = [
    Mutation(
        fault="an action's name has a typo",
        where=DRIVER,
        caught_by="components",
        seed=rewrite(r"action: ExecutePowerShell$", "action: ExecutePowershell"),
    ),
    Mutation(
        fault="a component has no validate phase",
        where=PYTHON,
        caught_by="components",
        seed=rewrite(r"^  - name: validate$", "  - name: check"),
    ),
    Mutation(
        fault="a step may take for ever",
        where=PYTHON,
        caught_by="components",
        seed=rewrite(r"^ +timeoutSeconds: 900\n", ""),
    ),
    Mutation(
        fault="the build goes on after a failed step",
        where=DRIVER,
        caught_by="components",
        seed=rewrite(r"onFailure: Abort$", "onFailure: Continue"),
    ),
    Mutation(
        fault="a script goes on after an error",
        where=PYTHON,
        caught_by="components",
        seed=rewrite(r"^ +\$ErrorActionPreference = 'Stop'\n", ""),
    ),
    Mutation(
        fault="an installer's exit code is looked at by nobody",
        where=DRIVER,
        caught_by="components",
        seed=rewrite(r"^ +if \(\$setup\.ExitCode .*\n", ""),
    ),
    Mutation(
        fault="a downloaded installer is not compared with its digest",
        where=PYTHON,
        caught_by="components",
        seed=rewrite(r"^ +checksum: .*\n +algorithm: .*\n", ""),
    ),
    Mutation(
        fault="a document asks for a parameter that it does not declare",
        where=PYTHON,
        caught_by="components",
        seed=rewrite(r"\{\{ Folder \}\}", "{{ Foldr }}"),
    ),
    Mutation(
        fault="a document downloads what no version names",
        where=DRIVER,
        caught_by="pinned",
        seed=rewrite(r'source: "\{\{ Url \}\}"', 'source: "https://example.com/latest/driver.exe"'),
    ),
]

MUTATIONS = [*BUILD, *DOCUMENTS]
