"""The workload's messages sent by real processes, while these are killed and their disks, clocks and folders disturbed.

    python -m tests.real.journey.soak --letters 200 --seed 7
 `story.py` plays what tests/workload draws: on `desk.py`, one user's profile and the programs that work on it
(`neighbours.py`: neomutt, mbsync, libfaketime), over the nodes of tests/real/process_network.py. `forking.py` starts
commands quickly. `claims.py` keeps what was said yes to and holds it against what lies in the folders at the end.
`files.py` sends what lies on a real disk."""
