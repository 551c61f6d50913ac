"""A worker that speaks HTTP/2 and nothing else: http2.py SOCKET"""
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lib.pairs import PairBackend  # noqa: E402

backend = PairBackend(sys.argv[1], speaks="h2c")
signal.sigwait([signal.SIGTERM])
