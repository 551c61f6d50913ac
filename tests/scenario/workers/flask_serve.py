"""flask_app under werkzeug's own threaded server: flask_serve.py unix:/path | PORT"""
import sys

from werkzeug.serving import run_simple

from flask_app import app

address = sys.argv[1]
if address.startswith("unix:"):
    # werkzeug spells a unix socket unix:///path
    run_simple("unix://" + address[len("unix:"):], 0, app, threaded=True)
else:
    run_simple("127.0.0.1", int(address), app, threaded=True)
