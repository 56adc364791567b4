# The agent's image: compiled sources, production packages and the pinned Node on Debian slim; no compiler, no npm.
#
# Tags move. To build the same twice, name both bases by digest (docker buildx imagetools inspect node:20-bookworm-slim):
#   docker build --build-arg NODE_BASE=node@sha256:… --build-arg DEBIAN_BASE=debian@sha256:… .
ARG NODE_BASE=node:20-bookworm-slim
ARG DEBIAN_BASE=debian:bookworm-slim

FROM ${NODE_BASE} AS build
WORKDIR /src
RUN apt-get update && apt-get install -y --no-install-recommends libatomic1
COPY package.json package-lock.json tsconfig.json ./
COPY scripts ./scripts
RUN node scripts/run.mjs --version
COPY src ./src
RUN node scripts/run.mjs scripts/build.ts
# The runtime stage takes three folders: the program, its packages without development ones, and the pinned Node.
RUN mkdir -p /out/bin \
  && cp "node_modules/node-linux-$(node -p process.arch)/bin/node" /out/bin/node \
  && npm ci --omit=dev --ignore-scripts --no-audit --no-fund \
  && rm -rf node_modules/node-linux-* node_modules/.bin node_modules/.culvert-installed \
  && cp -r package.json dist node_modules /out/

FROM ${DEBIAN_BASE}
RUN apt-get update \
  && apt-get install -y --no-install-recommends nftables iproute2 iptables libatomic1 ca-certificates \
  && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/bin/node /usr/local/bin/node
COPY --from=build /out/package.json /opt/culvert/package.json
COPY --from=build /out/node_modules /opt/culvert/node_modules
COPY --from=build /out/dist /opt/culvert/dist
COPY LICENSE /opt/culvert/LICENSE
# For `kubectl exec … -- culvert status`.
RUN ln -s /opt/culvert/dist/cli/main.js /usr/local/bin/culvert
ENV NODE_ENV=production
# Istio's paths (./var/run/secrets, ./etc/istio) start here, as in the image of ztunnel.
WORKDIR /
# Root with the capabilities the manifest grants: setns needs SYS_ADMIN, nft NET_ADMIN, transparent sockets NET_RAW.
USER root
ENTRYPOINT ["/usr/local/bin/node", "/opt/culvert/dist/cli/main.js"]
CMD ["agent"]
