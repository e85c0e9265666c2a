# For Packer 1.7 and newer; copy it beside gpu-worker.pkr.hcl. Older ones refuse it and have the builder built in.
packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.2.8"
    }
  }
}
