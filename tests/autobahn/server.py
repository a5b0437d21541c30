"""Starts the suite's fuzzing server. The only file here for CPython 2.7.

Its argument is the file with the suite's options, as JSON. The suite itself would listen on every
interface, on a port that has to be known before. Here it listens on the loopback, on a free port,
and says in the first and only line of its output which one that is, which cases it plays, and what
their sections are called. What the suite prints goes to standard error. The server ends when its
standard input does, so that it never outlives the one who started it.
"""

import json
import os
import sys
import threading

from autobahntestsuite import _version, fuzzing
from twisted.internet import reactor

from autobahn.twisted.websocket import listenWS  # The suite's own framework, not this folder.

# The suite gives its client one second to end a case. A machine may have other things to do.
PATIENCE = 20

first_line = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def patiently(method):
    return lambda protocol, delay: method(protocol, PATIENCE * delay)


def listen_on_the_loopback(factory, tls_context=None):
    factory.setProtocolOptions(closeHandshakeTimeout=PATIENCE, openHandshakeTimeout=5 * PATIENCE)
    listener = listenWS(factory, tls_context, interface="127.0.0.1")
    ready = {
        "version": _version.__version__,
        "port": listener.getHost().port,
        "cases": factory.specCases,
        "titles": fuzzing.CaseCategories,
    }
    first_line.write(json.dumps(ready) + "\n")
    first_line.close()
    return listener


def stop_at_the_end_of_input():
    sys.stdin.read()
    reactor.callFromThread(reactor.stop)


def main():
    with open(sys.argv[1]) as file:
        options = json.load(file)
    fuzzing.listenWS = listen_on_the_loopback
    protocol = fuzzing.FuzzingProtocol
    protocol.killAfter = patiently(protocol.killAfter.__func__)
    protocol.closeAfter = patiently(protocol.closeAfter.__func__)
    fuzzing.startServer(options, 0)  # 0: without its web page, which is for browsers.
    watcher = threading.Thread(target=stop_at_the_end_of_input)
    watcher.daemon = True
    watcher.start()
    reactor.run()


main()
