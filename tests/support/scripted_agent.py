"""The agent's own program with the scripted processor: `python -m tests.support.scripted_agent`."""

from scanfleet.agent import main
from tests.support.scripted_program import ScriptedProcessor

if __name__ == "__main__":
    main.pool_processors = lambda *_: {ScriptedProcessor.name: ScriptedProcessor()}
    main.main()
