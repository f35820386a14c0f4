"""What the network stack promises: who may reach whom, which ways lead out, and that nothing is looked up."""

import json
from functools import cache
from ipaddress import ip_network

import pytest
from aws_cdk import App

from cdk.config import read_config
from scanfleet.contract import AGENT_STATUS_PORT
from stacks.network import NetworkStack
from tests.support.template import Resource, StackTemplate

SUBNET = "AWS::EC2::Subnet"
GROUP = "AWS::EC2::SecurityGroup"
ENDPOINT = "AWS::EC2::VPCEndpoint"
CERTIFICATE = "arn:aws:acm:us-east-1:123456789012:certificate/00000000-0000-0000-0000-000000000000"
PUBLIC = {
    "load_balancer": "internet-facing",
    "certificate_arn": CERTIFICATE,
    "auth": "jwt",
    "jwt_issuer": "https://issuer.example",
    "jwt_audience": ["scanfleet"],
    "allowed_cidrs": ["203.0.113.0/24"],
}
CLOSED = {"network": {"egress": "endpoints"}, "image": {"windows_updates": False}}
EXISTING = {
    "vpc_id": "vpc-0123456789abcdef0",
    "vpc_cidr": "10.1.0.0/16",
    "private_subnet_ids": ["subnet-11111111", "subnet-22222222"],
    "public_subnet_ids": ["subnet-33333333", "subnet-44444444"],
    "zones": ["us-east-1a", "us-east-1b"],
}


@pytest.fixture(scope="module")
def network(context):
    """The network stack of a stage with these settings, without the stacks around it."""

    @cache
    def synthesized(stage: str, values: str) -> StackTemplate:
        stages = {stage: {"region": "us-east-1"} | json.loads(values)}
        app = App(context=context, analytics_reporting=False)
        made = NetworkStack(app, "Network", config=read_config(stage=stage, context={"stages": stages}))
        return StackTemplate(app.synth().get_stack_by_name(made.stack_name).template)

    return lambda stage="dev", **values: synthesized(stage, json.dumps(values, sort_keys=True))


def blocks(template: StackTemplate) -> list[str]:
    return sorted(subnet.properties["CidrBlock"] for subnet in template.all(SUBNET))


def group(template: StackTemplate, description: str) -> Resource:
    (found,) = [
        g for g in template.all(GROUP) if g.properties["GroupDescription"].startswith(f"{description}:")
    ]
    return found


def rules(template: StackTemplate, of: Resource, direction: str) -> list[dict]:
    """Return a group's rules, written inside it or apart: direction is Ingress or Egress."""
    apart = [
        rule.properties
        for rule in template.all(f"AWS::EC2::SecurityGroup{direction}")
        if rule.properties["GroupId"] == {"Fn::GetAtt": [of.logical_id, "GroupId"]}
    ]
    return [*of.properties.get(f"SecurityGroup{direction}", []), *apart]


def ports(found: list[dict]) -> set[tuple[int, int]]:
    return {(rule["FromPort"], rule["ToPort"]) for rule in found if rule["IpProtocol"] == "tcp"}


def leads_out(template: StackTemplate) -> bool:
    """Whether some route leaves the VPC."""
    return any(
        route.properties["DestinationCidrBlock"] == "0.0.0.0/0" for route in template.all("AWS::EC2::Route")
    )


# --- Ways out ----------------------------------------------------------------------------------------------


def test_machines_reach_the_internet_through_one_nat_gateway_by_default(network):
    template = network()

    (gateway,) = template.all("AWS::EC2::NatGateway")
    private = [r for r in template.all("AWS::EC2::Route") if "NatGatewayId" in r.properties]
    assert len(private) == 2
    assert {r.properties["NatGatewayId"]["Ref"] for r in private} == {gateway.logical_id}


def test_each_zone_has_a_nat_gateway_of_its_own_where_the_configuration_wants_it(network):
    template = network(network={"availability_zones": 3, "nat_gateways": 3})

    private = [r for r in template.all("AWS::EC2::Route") if "NatGatewayId" in r.properties]
    assert len({r.properties["NatGatewayId"]["Ref"] for r in private}) == 3


@pytest.mark.parametrize("settings", [{}, CLOSED])
def test_s3_and_dynamodb_are_reached_without_a_nat_gateway_from_every_subnet(network, settings):
    template = network(**settings)

    tables = {table.logical_id for table in template.all("AWS::EC2::RouteTable")}
    gateways = [e.properties for e in template.all(ENDPOINT) if e.properties["VpcEndpointType"] == "Gateway"]
    assert {json.dumps(g["ServiceName"]).rsplit(".", 1)[1][:2] for g in gateways} == {"s3", "dy"}
    assert all({t["Ref"] for t in g["RouteTableIds"]} == tables for g in gateways)


def test_with_endpoints_nothing_leads_out_and_every_service_that_is_called_has_one(network):
    template = network(**CLOSED)

    interfaces = [
        e.properties for e in template.all(ENDPOINT) if e.properties["VpcEndpointType"] == "Interface"
    ]
    services = {e["ServiceName"].removeprefix("com.amazonaws.us-east-1.") for e in interfaces}
    assert services == {
        "autoscaling",
        "ec2",
        "ec2messages",
        "imagebuilder",
        "logs",
        "monitoring",
        "sqs",
        "ssm",
        "ssmmessages",
        "sts",
    }
    assert all(e["PrivateDnsEnabled"] for e in interfaces)
    assert not leads_out(template)
    assert not template.all("AWS::EC2::InternetGateway")


def test_only_machines_reach_the_endpoints_and_only_over_tls(network):
    template = network(**CLOSED)
    endpoints = group(template, "Endpoints of AWS services")

    found = rules(template, endpoints, "Ingress")

    machines = {group(template, name).logical_id for name in ("Agents", "Image builds")}
    assert {rule["SourceSecurityGroupId"]["Fn::GetAtt"][0] for rule in found} == machines
    assert ports(found) == {(443, 443)}


def test_the_local_stage_has_no_way_out_because_its_emulator_has_none(network):
    template = network("local", account="000000000000")

    assert not leads_out(template)
    assert not [r for r in template.resources() if r.kind.startswith("Custom::")]


# --- Subnets -----------------------------------------------------------------------------------------------


def test_no_machine_gets_a_public_address(network):
    for settings in ({}, CLOSED, {"api": PUBLIC}):
        assert not any(s.properties["MapPublicIpOnLaunch"] for s in network(**settings).all(SUBNET))


def test_zones_are_chosen_when_it_is_deployed_and_not_looked_up(network):
    zones = [s.properties["AvailabilityZone"] for s in network().all(SUBNET)]

    assert {json.dumps(zone) for zone in zones} == {
        json.dumps({"Fn::Select": [index, {"Fn::GetAZs": ""}]}) for index in range(2)
    }


def test_zones_that_the_configuration_names_are_taken(network):
    template = network(network={"zones": ["us-east-1b", "us-east-1d", "us-east-1f"]})

    assert {s.properties["AvailabilityZone"] for s in template.all(SUBNET)} == {
        "us-east-1b",
        "us-east-1d",
        "us-east-1f",
    }


def test_a_zone_or_a_way_out_added_later_moves_no_subnet(network):
    two, three = network(), network(network={"availability_zones": 3})

    assert set(blocks(two)) < set(blocks(three))
    assert set(blocks(network(**CLOSED))) < set(blocks(two))


@pytest.mark.parametrize("prefix", [16, 20, 24])
def test_subnets_of_every_size_of_vpc_fit_into_it_and_hold_a_load_balancer(network, prefix):
    cidr = f"10.9.0.0/{prefix}"
    template = network(network={"vpc_cidr": cidr, "availability_zones": 3})

    subnets = [ip_network(block) for block in blocks(template)]
    assert len(subnets) == 6
    assert all(subnet.subnet_of(ip_network(cidr)) and subnet.prefixlen <= 27 for subnet in subnets)


# --- Who may reach whom ------------------------------------------------------------------------------------


def test_agents_let_in_the_load_balancers_health_checks_and_nothing_else(network):
    template = network()
    agents = group(template, "Agents")

    (rule,) = rules(template, agents, "Ingress")

    balancer = group(template, "Load balancer").logical_id
    assert rule["SourceSecurityGroupId"]["Fn::GetAtt"][0] == balancer
    assert ports([rule]) == {(AGENT_STATUS_PORT, AGENT_STATUS_PORT)}


def test_image_builds_let_nothing_in(network):
    template = network()

    assert rules(template, group(template, "Image builds"), "Ingress") == []


def test_machines_go_out_over_tls_and_image_builds_to_windows_update_besides(network):
    template, closed = network(), network(**CLOSED)

    assert ports(rules(template, group(template, "Agents"), "Egress")) == {(443, 443)}
    assert ports(rules(template, group(template, "Image builds"), "Egress")) == {(80, 80), (443, 443)}
    assert ports(rules(closed, group(closed, "Image builds"), "Egress")) == {(443, 443)}


def test_the_load_balancer_goes_out_to_agents_only(network):
    template = network()

    found = rules(template, group(template, "Load balancer"), "Egress")

    (rule,) = [r for r in found if r["IpProtocol"] == "tcp"]
    assert rule["DestinationSecurityGroupId"]["Fn::GetAtt"][0] == group(template, "Agents").logical_id
    assert {r["CidrIp"] for r in found if r is not rule} <= {"255.255.255.255/32"}


def test_where_tokens_are_checked_the_load_balancer_gets_the_issuers_keys(network):
    template = network(api=PUBLIC)

    out = rules(template, group(template, "Load balancer"), "Egress")
    assert ports(out) == {(443, 443), (AGENT_STATUS_PORT, AGENT_STATUS_PORT)}


@pytest.mark.parametrize("settings", [{}, CLOSED, {"api": PUBLIC}, {"network": EXISTING}])
def test_no_group_is_left_to_the_rule_that_lets_everything_out(network, settings):
    for found in network(**settings).all(GROUP):
        out = found.properties["SecurityGroupEgress"]
        assert out
        assert not [rule for rule in out if rule["IpProtocol"] == "-1"]


def test_callers_inside_the_vpc_reach_the_load_balancer_by_default(network):
    template = network()

    (rule,) = rules(template, group(template, "Load balancer"), "Ingress")
    assert rule["CidrIp"] == "10.64.0.0/16"
    assert ports([rule]) == {(80, 80)}


def test_with_a_certificate_the_load_balancer_lets_in_those_who_may_over_tls_only(network):
    template = network(api=PUBLIC)

    found = rules(template, group(template, "Load balancer"), "Ingress")
    assert [rule["CidrIp"] for rule in found] == ["203.0.113.0/24"]
    assert ports(found) == {(443, 443)}


def test_the_default_security_group_loses_its_rules(network):
    template = network()

    (closed,) = template.all("Custom::VpcRestrictDefaultSG")
    assert closed.properties["DefaultSecurityGroupId"] == {
        "Fn::GetAtt": [template.only("AWS::EC2::VPC").logical_id, "DefaultSecurityGroup"]
    }


def test_without_the_custom_resource_the_stack_needs_no_function(network):
    template = network(network={"close_default_security_group": False})

    assert not template.all("AWS::Lambda::Function")


def test_every_flow_is_logged_for_as_long_as_other_logs_are_kept(network):
    template = network(log_retention_days=30)

    flow = template.only("AWS::EC2::FlowLog").properties
    logs = template.only("AWS::Logs::LogGroup")
    assert flow["TrafficType"] == "ALL"
    assert flow["LogGroupName"] == {"Ref": logs.logical_id}
    assert flow["ResourceId"] == {"Ref": template.only("AWS::EC2::VPC").logical_id}
    assert logs.properties["RetentionInDays"] == 30


# --- An existing VPC ---------------------------------------------------------------------------------------


def test_in_an_existing_vpc_only_security_groups_are_made(network):
    template = network(network=EXISTING)

    kinds = {resource.kind for resource in template.resources()}
    assert kinds == {GROUP, "AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"}
    assert {g.properties["VpcId"] for g in template.all(GROUP)} == {EXISTING["vpc_id"]}


def test_in_an_existing_vpc_its_own_addresses_reach_the_load_balancer(network):
    template = network(network=EXISTING)

    (rule,) = rules(template, group(template, "Load balancer"), "Ingress")
    assert rule["CidrIp"] == EXISTING["vpc_cidr"]
