"""Who a node or a person is: contacts, addresses, certificates and the networks that they are valid in."""
