# One image with two static programs, the operator (/manager) and the parser that it runs on each target (/hlparser),
# which has the CA certificates of public authorities built in, and with the licences of what they are made of.
# `make docker-build` compiles them first, with their version linked in, so the image needs neither a compiler nor a
# base. `make image` builds an equal image without an engine.
FROM scratch
ARG TARGETARCH=amd64
ARG VERSION
ARG COMMIT
LABEL org.opencontainers.image.version=${VERSION} org.opencontainers.image.revision=${COMMIT}
COPY bin/linux/${TARGETARCH}/manager bin/linux/${TARGETARCH}/hlparser /
COPY LICENSE THIRD_PARTY_LICENSES /
USER 65532:65532
ENTRYPOINT ["/manager"]
