"""What booting machines and the local mode look up: the contract's parameters, in SSM and as outputs.

And one that operators write: log levels.
"""

from collections.abc import Mapping

from aws_cdk import CfnOutput
from aws_cdk.aws_ssm import StringParameter
from constructs import Construct

from scanfleet.contract import DATA_PARAMETERS, NO_LOG_LEVELS, Parameter, parameter_name


class SystemParameters(Construct):
    """One SSM parameter and one stack output for each of the contract's DATA_PARAMETERS.

    An output's name is the parameter's in capitals: job-table -> JobTable. Nothing in them is secret.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, stage: str, values: Mapping[Parameter, str]
    ) -> None:
        super().__init__(scope, construct_id)
        for parameter in DATA_PARAMETERS:
            name = output_name(parameter)
            StringParameter(
                self,
                name,
                parameter_name=parameter_name(stage, parameter),
                string_value=values[parameter],
                description=f"Scanfleet {stage}: {parameter}",
            )
            CfnOutput(self, f"{name}Output", value=values[parameter]).override_logical_id(name)
        StringParameter(
            self,
            output_name(Parameter.LOG_LEVELS),
            parameter_name=parameter_name(stage, Parameter.LOG_LEVELS),
            string_value=NO_LOG_LEVELS,  # what operators write there since, a deployment leaves alone
            description=f"Scanfleet {stage}: log levels set for a while, by scanfleet loglevel",
        )


def output_name(parameter: Parameter) -> str:
    """Return the stack output's name. Example: "job-table" -> "JobTable"."""
    return parameter.title().replace("-", "")
