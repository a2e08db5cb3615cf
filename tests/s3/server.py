"""An S3 server in memory for tests (moto), with a bucket and one user who may use it.

Prints one line of JSON (endpoint, bucket, key, secret), answers `list` and `get KEY` on its standard input with a line of
JSON each, and serves until that ends.
"""

import json
import os
import sys

BUCKET = "checkpoints"
# Requests that set the user up; every one after them must be signed by somebody who may make it.
SETTING_UP = 4
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = str(SETTING_UP)

import boto3
from moto.server import ThreadedMotoServer


def main():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    place = {
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
        "aws_access_key_id": "setup",
        "aws_secret_access_key": "setup",
    }
    boto3.client("s3", **place).create_bucket(Bucket=BUCKET)
    iam = boto3.client("iam", **place)
    iam.create_user(UserName="medevo")
    keys = iam.create_access_key(UserName="medevo")["AccessKey"]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_user_policy(UserName="medevo", PolicyName="all", PolicyDocument=json.dumps(policy))
    ready = {
        "endpoint": endpoint,
        "bucket": BUCKET,
        "key": keys["AccessKeyId"],
        "secret": keys["SecretAccessKey"],
    }
    print(json.dumps(ready), flush=True)
    place |= {"aws_access_key_id": ready["key"], "aws_secret_access_key": ready["secret"]}
    s3 = boto3.client("s3", **place)
    for line in sys.stdin:
        command, _, key = line.strip().partition(" ")
        if command == "list":
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
            answer = [found["Key"] for page in pages for found in page.get("Contents", [])]
        else:
            answer = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()
        print(json.dumps(answer), flush=True)


main()
