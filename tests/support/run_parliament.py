"""Run by .venv-checks: policy documents by place on standard input, parliament's findings on standard out."""

import json
import sys

from parliament import analyze_policy_string, enhance_finding


def main() -> None:
    """Analyze each document as an identity policy."""
    answer = {}
    for where, document in json.load(sys.stdin).items():
        findings = [enhance_finding(f) for f in analyze_policy_string(json.dumps(document)).findings]
        answer[where] = [{"issue": f.issue, "severity": f.severity, "detail": f.detail} for f in findings]
    json.dump(answer, sys.stdout, default=str)


if __name__ == "__main__":
    main()
