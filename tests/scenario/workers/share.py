"""Holds a process to a share of a core, as cpulimit does, by stopping and continuing it. Unlike cpulimit it keeps books:
time that the machine did not give the process is made up for, so that over some seconds the share is exact.

    share.py PERCENT PID
"""
import os
import signal
import sys
import time

share, pid = float(sys.argv[1]) / 100, int(sys.argv[2])
process_clock = (~pid << 3) | 2          # what clock_getcpuclockid() gives: CPU time of all its threads, in nanoseconds
most_owed = 1.0 * share                  # seconds of CPU that can be made up for

owed, used, then, stopped = 0.0, time.clock_gettime(process_clock), time.monotonic(), False
while True:
    time.sleep(0.005)
    try:
        now, used_now = time.monotonic(), time.clock_gettime(process_clock)
        owed = min(owed + share * (now - then) - (used_now - used), most_owed)
        used, then = used_now, now
        if stopped != (owed < 0):
            stopped = not stopped
            os.kill(pid, signal.SIGSTOP if stopped else signal.SIGCONT)
    except (OSError, ProcessLookupError):
        break                            # it has ended
