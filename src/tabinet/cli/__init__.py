"""The command line. Each module holds the commands of one subject; heavy imports stay inside the commands, so that each is quick.

``main`` is the root and turns errors into messages and exit codes; ``roster`` lists the commands and imports one when it is needed;
``place`` finds the store. ``reference`` writes ``docs/cli.md``.

Exit codes: 0 done; 1 the answer is no (a check found mismatches, a host is not ready, a document was refused by the store, only some
documents went through); 2 bad usage or bad input, nothing was changed; 3 the surroundings (no root, a program missing, the store does
not answer).
"""
