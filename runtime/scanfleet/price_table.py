"""List prices, pinned: what an hour of each allowed instance type costs. `prices.py` reads them.

Source of the Linux prices and of the factors: EC2 On-Demand list prices as published by Vantage
(instances.vantage.sh) on 2026-08-26 (g5, g6, gr6) and 2025-11-30 (g4dn.12xlarge, g4dn's factors); the other
sizes of g4dn are AWS's list prices since 2019, of which xlarge and 2xlarge were compared with a public table
(docs/unproven.md: how to compare the rest). Source of the licence: EC2 user guide, "Optimize CPUs for
License-Included instances": Windows Server costs the same per vCPU hour everywhere. An operator with other
prices sets them for the deployment (docs/controller.md).
"""

AS_OF = "2026-08-26"
WINDOWS_LICENCE_USD_PER_VCPU_HOUR = 0.046

LINUX_US_EAST_1: dict[str, tuple[float, int]] = {
    "g4dn.xlarge": (0.526, 4),
    "g4dn.2xlarge": (0.752, 8),
    "g4dn.4xlarge": (1.204, 16),
    "g4dn.8xlarge": (2.176, 32),
    "g4dn.12xlarge": (3.912, 48),
    "g4dn.16xlarge": (4.352, 64),
    "g4dn.metal": (7.824, 96),
    "g5.xlarge": (1.006, 4),
    "g5.2xlarge": (1.212, 8),
    "g5.4xlarge": (1.624, 16),
    "g5.8xlarge": (2.448, 32),
    "g5.12xlarge": (5.672, 48),
    "g5.16xlarge": (4.096, 64),
    "g5.24xlarge": (8.144, 96),
    "g5.48xlarge": (16.288, 192),
    "g6.xlarge": (0.8048, 4),
    "g6.2xlarge": (0.9776, 8),
    "g6.4xlarge": (1.3232, 16),
    "g6.8xlarge": (2.0144, 32),
    "g6.12xlarge": (4.6016, 48),
    "g6.16xlarge": (3.3968, 64),
    "g6.24xlarge": (6.6752, 96),
    "g6.48xlarge": (13.3504, 192),
    "gr6.4xlarge": (1.5392, 16),
    "gr6.8xlarge": (2.4464, 32),
}
"""Instance type -> US dollars per hour with Linux in us-east-1, vCPUs."""

_OTHERS = {
    "us-east-1": 1.0,
    "us-east-2": 1.0,
    "us-west-2": 1.0,
    "ap-northeast-1": 1.4503,
    "ap-northeast-2": 1.2296,
    "ap-south-1": 1.2008,
    "ap-southeast-2": 1.3002,
    "ca-central-1": 1.1103,
    "eu-central-1": 1.2505,
    "eu-north-1": 1.0606,
    "eu-west-2": 1.2694,
    "eu-west-3": 1.2694,
    "sa-east-1": 1.6998,
}
REGION_FACTORS: dict[str, dict[str, float]] = {
    "g4dn": {
        "us-east-1": 1.0,
        "us-east-2": 1.0,
        "us-west-2": 1.0,
        "ap-northeast-1": 1.3499,
        "ap-northeast-2": 1.2301,
        "ap-south-1": 1.1007,
        "ap-southeast-1": 1.3993,
        "ap-southeast-2": 1.3004,
        "ca-central-1": 1.1102,
        "eu-central-1": 1.25,
        "eu-north-1": 1.0608,
        "eu-west-1": 1.115,
        "eu-west-2": 1.17,
        "eu-west-3": 1.1692,
        "sa-east-1": 1.6996,
    },
    "g5": _OTHERS | {"eu-west-1": 1.1163},
    "g6": _OTHERS,
    "gr6": _OTHERS,
}
"""Family -> region -> its Linux price as a multiple of us-east-1's; all sizes of a family share it."""
