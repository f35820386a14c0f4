"""An agent of the system with mixed jobs."""

import os

from tests.support.mixed_jobs import REGISTER, install

if __name__ == "__main__":
    install(os.environ[REGISTER])
    from scanfleet.agent import main as agent

    agent.main()
