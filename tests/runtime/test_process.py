"""What imports of a process that stays leave behind."""

import gc
import ssl

from p2pfed.runtime.process import for_life, without_authorities


def authorities(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509_ca"]


def test_contexts_made_meanwhile_know_no_authority_and_later_ones_do() -> None:
    usual = authorities(ssl.create_default_context())
    with without_authorities():
        assert authorities(ssl.create_default_context()) == 0
    assert authorities(ssl.create_default_context()) == usual
    assert "set_default_verify_paths" not in vars(ssl.SSLContext)


def test_garbage_is_collected_again_afterwards() -> None:
    before = gc.get_threshold()
    with for_life():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold() == before
