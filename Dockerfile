# phonenas and its demo on the CPU of this computer:
#
#     docker build -t phonenas . && docker run --rm -v "$PWD/runs:/phonenas/runs" phonenas
#
# The report is then runs/demo/report.html. For another command:
#
#     docker run --rm phonenas .venv/bin/phonenas --help
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends make libgomp1 && rm -rf /var/lib/apt/lists/*
WORKDIR /phonenas
COPY . .
RUN make install
CMD ["make", "demo"]
