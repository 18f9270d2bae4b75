"""How a person gets, keeps and loses an address: the authority, invites, joining, renewal."""
