from bench.peers.work import hit


def noop() -> bool:
    hit()
    return True
