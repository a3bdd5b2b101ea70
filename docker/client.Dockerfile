# A client: `swarm chat`, `score`, `status` and `load`, without torch and without Ray.
FROM python:3.12-slim
WORKDIR /opt/swarm
COPY pyproject.toml README.md LICENSE ./
COPY swarm swarm
COPY cluster cluster
RUN pip install --no-cache-dir .
ENV SWARM_HOME=/data/swarm
VOLUME /data
ENTRYPOINT ["swarm"]
CMD ["chat"]
