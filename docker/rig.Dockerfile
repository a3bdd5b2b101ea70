# A rig: everything that `swarm up` and `swarm join` need. The card's driver stays on the host (nvidia-container-toolkit).
FROM python:3.11-slim
WORKDIR /opt/swarm
# torch alone first: it is by far the largest layer, and changes only with its version. Its wheel brings CUDA along.
RUN pip install --no-cache-dir torch==2.13.0
# Triton compiles a launcher for each kernel of a card at the first start; without a compiler the slower twins of those kernels run.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE ./
COPY swarm swarm
COPY cluster cluster
RUN pip install --no-cache-dir '.[rig]'
# The key, the rig's id and the downloaded weights outlive the container when this is a volume.
ENV SWARM_HOME=/data/swarm HF_HOME=/data/huggingface
VOLUME /data
EXPOSE 7700-7731
ENTRYPOINT ["swarm"]
CMD ["up"]
