"""The limit that no uploader in this language goes below: read, CRC32, one TLS (or plain) socket, no S3 client at all.

python rawsocket.py FILE https://127.0.0.1:PORT KEY
"""

import os
import socket
import ssl
import sys
from urllib.parse import urlsplit

from isal import isal_zlib

path, url, key = sys.argv[1:]
where = urlsplit(url)
sock: socket.socket = socket.create_connection((where.hostname, where.port))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
if where.scheme == "https":
    context = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
    sock = context.wrap_socket(sock, server_hostname=where.hostname)
fd = os.open(path, os.O_RDONLY)
size = os.fstat(fd).st_size
buffer = memoryview(bytearray(min(16 << 20, size)))
request = f"PUT /bench/{key} HTTP/1.1\r\nHost: {where.hostname}\r\nContent-Length: {size}\r\n\r\n"
sock.sendall(request.encode())
at = crc32 = 0
while at < size:
    got = os.preadv(fd, [buffer], at)
    crc32 = isal_zlib.crc32(buffer[:got], crc32)
    sock.sendall(buffer[:got])
    at += got
answer = sock.recv(4096)
sys.exit(0 if b" 200 " in answer.split(b"\r\n")[0] else 1)
