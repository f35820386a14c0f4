"""The network: a new VPC, or an existing one by id; and one security group for each kind of machine."""

from aws_cdk.aws_ec2 import IpAddresses, SecurityGroup, SubnetConfiguration, SubnetSelection, SubnetType, Vpc
from constructs import Construct

from cdk.config import DeploymentConfig


class Network(Construct):
    """Where machines and the load balancer live.

    The security groups are made here, so that the load balancer's and the fleet's stacks need not know each
    other: the load balancer may reach agents on their status port, and nobody else may reach them at all.
    """

    def __init__(self, scope: Construct, construct_id: str, *, config: DeploymentConfig) -> None:
        super().__init__(scope, construct_id)
        self.vpc = Vpc(
            self,
            "Vpc",
            ip_addresses=IpAddresses.cidr(config.network.vpc_cidr),
            max_azs=2,
            nat_gateways=0,
            subnet_configuration=[
                SubnetConfiguration(name="private", subnet_type=SubnetType.PRIVATE_ISOLATED, cidr_mask=20)
            ],
        )
        self.private_subnets = SubnetSelection(subnets=self.vpc.isolated_subnets)
        self.load_balancer = SecurityGroup(self, "LoadBalancer", vpc=self.vpc)
        self.agents = SecurityGroup(self, "Agents", vpc=self.vpc)
        self.builders = SecurityGroup(self, "Builders", vpc=self.vpc)
