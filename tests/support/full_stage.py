"""Settings of a stage that has every option turned on: checks of templates see what each of them adds."""

UUID = "00000000-0000-0000-0000-000000000000"
SETTINGS = {
    "region": "eu-central-1",
    "account": "123456789012",
    "network": {
        "vpc_cidr": "10.70.0.0/16",
        "availability_zones": 3,
        "nat_gateways": 3,
    },
    "api": {
        "load_balancer": "internet-facing",
        "allowed_cidrs": ["203.0.113.0/24"],
        "certificate_arn": f"arn:aws:acm:eu-central-1:123456789012:certificate/{UUID}",
        "auth": "jwt",
        "jwt_issuer": "https://issuer.example.com",
        "jwt_audience": ["scanfleet"],
        "operators": ["operator"],
        "web_acl": True,
    },
    "pools": {
        "windows-gpu": {
            "instance_types": ["g4dn.xlarge", "g4dn.2xlarge", "g5.xlarge"],
            "scale_to_zero": False,
            "min_instances": 1,
            "max_instances": 20,
            "slots_per_instance": 2,
            "spot_percent": 50,
            "root_volume_throughput_mibps": 1000,
            "scratch_volume_gib": 500,
        }
    },
    "medit": {"release_bucket": "example-releases", "initial_version": "4.2.0"},
    "image": {"golden_prefix": "s3://example-golden/set/"},
    "schedules": [
        {
            "pool": "windows-gpu",
            "at": "0 7 * * MON-FRI",
            "time_zone": "Europe/Berlin",
            "min_instances": 2,
            "max_instances": 20,
        }
    ],
    "allowed_prefixes": ["s3://example-shared/scans/"],
    "tenants": {"clinic": {"allowed_prefixes": ["s3://example-clinic/"], "callers": ["subject"]}},
    "alarm_email": "ops@example.com",
    "log_retention_days": 365,
    "monthly_budget_usd": 5000,
    "customer_managed_key": True,
    "tags": {"product": "scanfleet", "team": "imaging"},
}
"""With a NAT gateway; a warm pool and interface endpoints exclude some of these: see CLOSED."""

CLOSED_SETTINGS = {
    "network": {"egress": "endpoints"},
    "image": {"windows_updates": False, "fast_launch": False},
    "pools": {"windows-gpu": {"warm_instances": 2}},
}
"""What SETTINGS exclude: no way out, a warm pool, an internal load balancer."""
