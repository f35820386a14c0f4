"""The network: a new VPC, or an existing one by id; and one security group for each kind of machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from aws_cdk import Acknowledgment, Annotations, Aws, Fn, RemovalPolicy, Validations
from aws_cdk.aws_ec2 import (
    CfnSecurityGroupEgress,
    FlowLogDestination,
    GatewayVpcEndpointAwsService,
    InterfaceVpcEndpointAwsService,
    IpAddresses,
    ISubnet,
    IVpc,
    Peer,
    Port,
    SecurityGroup,
    Subnet,
    SubnetConfiguration,
    SubnetSelection,
    SubnetType,
    Vpc,
)
from aws_cdk.aws_iam import Role, ServicePrincipal
from aws_cdk.aws_logs import LogGroup
from constructs import Construct

from cdk.config import AuthMode, DeploymentConfig, Egress, Scheme
from cdk.logs import RETENTION
from scanfleet.contract import AGENT_STATUS_PORT

MOST_ZONES = 3
"""Addresses for this many zones are set aside from the start, so that a zone added later moves no subnet."""
SERVICES_CALLED = {
    "AutoscalingEndpoint": InterfaceVpcEndpointAwsService.AUTOSCALING,
    "Ec2Endpoint": InterfaceVpcEndpointAwsService.EC2,
    "Ec2MessagesEndpoint": InterfaceVpcEndpointAwsService.EC2_MESSAGES,
    "ImageBuilderEndpoint": InterfaceVpcEndpointAwsService.IMAGE_BUILDER,
    "LogsEndpoint": InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
    "MonitoringEndpoint": InterfaceVpcEndpointAwsService.CLOUDWATCH_MONITORING,
    "SqsEndpoint": InterfaceVpcEndpointAwsService.SQS,
    "SsmEndpoint": InterfaceVpcEndpointAwsService.SSM,
    "SsmMessagesEndpoint": InterfaceVpcEndpointAwsService.SSM_MESSAGES,
    "StsEndpoint": InterfaceVpcEndpointAwsService.STS,
}
"""What agents and image builds call, besides S3 and DynamoDB, which have gateway endpoints. Not KMS: S3 and
DynamoDB use a key for their callers. Source: Image Builder user guide, "Image Builder and AWS PrivateLink
interface VPC endpoints"."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A VPC and its subnets, whoever made them."""

    vpc: IVpc
    private: Sequence[ISubnet]
    public: Sequence[ISubnet]


class Network(Construct):
    """Where machines and the load balancer live.

    The security groups are made here, so that the load balancer's and the fleet's stacks need not know each
    other: the load balancer may reach agents on their status port, and nobody else may reach them at all.
    Nothing but the load balancer's own callers is let in; machines reach AWS over TLS only. Security groups
    do not see DNS, instance metadata, time or Windows activation (EC2 user guide, "Security groups").
    """

    def __init__(self, scope: Construct, construct_id: str, *, config: DeploymentConfig) -> None:
        super().__init__(scope, construct_id)
        place = self._make_vpc(config) if config.network.vpc_id is None else self._existing_vpc(config)
        self.vpc = place.vpc
        self.private_subnets = SubnetSelection(subnets=list(place.private))
        """Where machines run."""
        is_public = config.api.load_balancer is Scheme.INTERNET_FACING
        self.load_balancer_subnets = SubnetSelection(
            subnets=list(place.public if is_public else place.private)
        )
        """Where the load balancer answers."""
        self.load_balancer = self._group("LoadBalancer", "Load balancer: callers in, status of agents out")
        self.agents = self._group("Agents", "Agents: status for the load balancer in, TLS out")
        self.builders = self._group("Builders", "Image builds: nothing in")
        self._open_load_balancer(config)
        if config.api.auth is AuthMode.JWT:  # the load balancer gets the issuer's keys itself
            _let_out(self.load_balancer, ports=(443,))
        _let_out(self.agents, ports=(443,))
        _let_out(self.builders, ports=(443, 80) if config.image.windows_updates else (443,))
        if config.network.vpc_id is None and config.network.egress is Egress.ENDPOINTS:
            self._add_interface_endpoints()

    # --- The VPC -------------------------------------------------------------------------------------------

    def _make_vpc(self, config: DeploymentConfig) -> _Place:
        network = config.network
        # The emulator of the local stage has no NAT gateways, and its agents are processes outside the VPC.
        nat_gateways = network.nat_gateways if network.egress is Egress.NAT and not config.is_local else 0
        has_public = nat_gateways > 0 or config.api.load_balancer is Scheme.INTERNET_FACING
        private = SubnetType.PRIVATE_WITH_EGRESS if nat_gateways else SubnetType.PRIVATE_ISOLATED
        zones = len(network.zones) or network.availability_zones
        vpc = Vpc(
            self,
            "Vpc",
            ip_addresses=IpAddresses.cidr(network.vpc_cidr),
            max_azs=zones,
            reserved_azs=MOST_ZONES - zones,
            nat_gateways=nat_gateways,
            restrict_default_security_group=network.close_default_security_group and not config.is_local,
            subnet_configuration=[
                SubnetConfiguration(
                    name="public",
                    subnet_type=SubnetType.PUBLIC,
                    cidr_mask=_public_mask(network.vpc_cidr),
                    map_public_ip_on_launch=False,
                    reserved=not has_public,
                ),
                SubnetConfiguration(name="private", subnet_type=private),
            ],
        )
        if network.zones:
            _acknowledge(vpc, "CloudFormation-Validate::W3010", "The configuration names the zones.")
        vpc.add_gateway_endpoint("S3Endpoint", service=GatewayVpcEndpointAwsService.S3)
        vpc.add_gateway_endpoint("DynamoDbEndpoint", service=GatewayVpcEndpointAwsService.DYNAMODB)
        vpc.add_flow_log(
            "FlowLog",
            destination=FlowLogDestination.to_cloud_watch_logs(self._flow_log(config), self._flow_log_role()),
        )
        subnets = vpc.private_subnets if nat_gateways else vpc.isolated_subnets
        return _Place(vpc=vpc, private=subnets, public=vpc.public_subnets)

    def _existing_vpc(self, config: DeploymentConfig) -> _Place:
        network = config.network
        assert network.vpc_id is not None  # its only caller has looked
        vpc = Vpc.from_vpc_attributes(
            self,
            "Vpc",
            vpc_id=network.vpc_id,
            vpc_cidr_block=network.vpc_cidr,
            availability_zones=list(dict.fromkeys(network.zones)),
        )
        private = [
            Subnet.from_subnet_attributes(self, f"Private{n}", subnet_id=subnet_id, availability_zone=zone)
            for n, (subnet_id, zone) in enumerate(zip(network.private_subnet_ids, network.zones, strict=True))
        ]
        public = [
            Subnet.from_subnet_attributes(self, f"Public{n}", subnet_id=subnet_id)
            for n, subnet_id in enumerate(network.public_subnet_ids)
        ]
        for subnet in (*private, *public):  # nothing here adds a route
            Annotations.of(subnet).acknowledge_warning("@aws-cdk/aws-ec2:noSubnetRouteTableId")
        return _Place(vpc=vpc, private=private, public=public)

    def _flow_log(self, config: DeploymentConfig) -> LogGroup:
        return LogGroup(
            self,
            "FlowLogs",
            retention=RETENTION[config.log_retention_days],
            removal_policy=RemovalPolicy.RETAIN if config.retain_data else RemovalPolicy.DESTROY,
        )

    def _flow_log_role(self) -> Role:
        """Return a role that VPC takes on for this account's flow logs only. The flow log adds what it needs.

        Source: VPC user guide, "IAM role for publishing flow logs to CloudWatch Logs".
        """
        own_account = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}
        return Role(
            self,
            "FlowLogRole",
            assumed_by=ServicePrincipal("vpc-flow-logs.amazonaws.com", conditions=own_account),
            description="Writes the VPC's flow log",
        )

    def _add_interface_endpoints(self) -> None:
        self.endpoints = self._group("Endpoints", "Endpoints of AWS services: TLS from machines in")
        for machines in (self.agents, self.builders):
            self.endpoints.add_ingress_rule(machines, Port.tcp(443), "machines call AWS")
        for construct_id, service in SERVICES_CALLED.items():
            self.vpc.add_interface_endpoint(
                construct_id,
                service=service,
                private_dns_enabled=True,
                security_groups=[self.endpoints],
                subnets=self.private_subnets,
                open=False,
            )

    # --- Who may reach whom --------------------------------------------------------------------------------

    def _group(self, construct_id: str, description: str) -> SecurityGroup:
        return SecurityGroup(
            self, construct_id, vpc=self.vpc, description=description, allow_all_outbound=False
        )

    def _open_load_balancer(self, config: DeploymentConfig) -> None:
        port = Port.tcp(443 if config.api.certificate_arn else 80)
        for cidr in config.api.allowed_cidrs or (config.network.vpc_cidr,):
            self.load_balancer.add_ingress_rule(Peer.ipv4(cidr), port, "callers of the API")
        self.agents.add_ingress_rule(self.load_balancer, Port.tcp(AGENT_STATUS_PORT), "health checks")
        # Not add_egress_rule: that takes back the group's own rule for no traffic, and a group without a rule
        # of its own lets everything out.
        CfnSecurityGroupEgress(
            self,
            "LoadBalancerToAgents",
            group_id=self.load_balancer.security_group_id,
            destination_security_group_id=self.agents.security_group_id,
            ip_protocol="tcp",
            from_port=AGENT_STATUS_PORT,
            to_port=AGENT_STATUS_PORT,
            description="health of agents",
        )
        if "0.0.0.0/0" in config.api.allowed_cidrs:
            _acknowledge(
                self.load_balancer,
                "AwsSolutions-EC23",
                "The configuration names 0.0.0.0/0 in api.allowed_cidrs.",
            )


def zone_names(config: DeploymentConfig) -> list[str]:
    """Return the zones of a new VPC: those that the configuration names, else the region's first ones.

    Chosen by CloudFormation when it deploys: the CDK itself would look them up in the account at synth.
    """
    if config.network.zones:
        return list(config.network.zones)
    return [Fn.select(index, Fn.get_azs()) for index in range(config.network.availability_zones)]


def _public_mask(vpc_cidr: str) -> int:
    """Return the prefix length of public subnets: /24 of a /16; never below what a load balancer needs.

    Source: ELB user guide, "Subnets for your load balancer": a /27 at least.
    """
    return min(27, ip_network(vpc_cidr).prefixlen + 8)


def _let_out(group: SecurityGroup, *, ports: Sequence[int]) -> None:
    """Let machines reach these ports anywhere: AWS's addresses change, and routes say what exists."""
    for port in ports:
        group.add_egress_rule(Peer.any_ipv4(), Port.tcp(port), "TLS" if port == 443 else "Windows Update")


def _acknowledge(construct: Construct, rule: str, reason: str) -> None:
    Validations.of(construct).acknowledge(Acknowledgment(id=rule, reason=reason))
