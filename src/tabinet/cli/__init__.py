"""The command line. Each module holds the commands of one subject; heavy imports stay inside the commands, so that ``--help`` is quick.

Exit codes: 0 done; 1 the answer is no (a check found mismatches, a host is not ready, a document was refused by the store);
2 bad usage or bad input, nothing was changed; 3 the surroundings (no root, a program missing, the store does not answer).
"""
