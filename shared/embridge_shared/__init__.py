"""What the edge and the cloud must agree on: types, wire, hand model, preprocessing, releases."""
