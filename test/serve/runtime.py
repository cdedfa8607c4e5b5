#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A function of kind lambda for the server's tests: a client of the Runtime API, as AWS documents it."""
import http.client
import json
import os
import sys
import time

API = "/2018-06-01/runtime"
conn = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
count = 0


def post(path, value, raw=False):
    conn.request("POST", API + path, value if raw else json.dumps(value).encode())
    answer = conn.getresponse()
    return answer.status, answer.read()


if os.environ.get("RUNTIME") == "init-error":
    conn.connect()
    post("/init/error", {"errorMessage": "no configuration", "errorType": "Init"})
    sys.exit(1)

while True:
    conn.request("GET", API + "/invocation/next")
    answer = conn.getresponse()
    event = json.loads(answer.read())
    fields = dict(answer.getheaders())
    ident = fields["Lambda-Runtime-Aws-Request-Id"]
    count += 1
    what = event.get("do") if isinstance(event, dict) else None
    if isinstance(event, dict) and "rawPath" in event:
        what = event["rawPath"][1:]
    if what == "count":
        result = count
    elif what == "fail":
        post("/invocation/%s/error" % ident, {"errorMessage": "told to fail", "errorType": "Told"})
        continue
    elif what == "exit":
        os._exit(3)
    elif what == "sleep":
        time.sleep(event["seconds"])
        result = "slept"
    elif what == "fields":
        result = fields
    elif what == "badid":
        status, _ = post("/invocation/no-such-id/response", 1)
        result = status
    elif what == "badpath":
        status, _ = post("/nowhere", 1)
        result = status
    elif what == "big":
        result = "x" * event["size"]
    elif what == "binary":
        result = {"statusCode": 201, "isBase64Encoded": True, "body": "AAEC/w==",
                  "headers": {"Content-Type": "application/x-binary", "X-Bad": "a\r\nX-Evil: 1"},
                  "cookies": ["a=1", "b=2"]}
    elif what == "badstatus":
        result = {"statusCode": 99}
    elif what == "say":
        print("from the runtime", file=sys.stderr, flush=True)
        result = "said"
    else:
        result = event
    post("/invocation/%s/response" % ident, result)
