# An image for EC2 on which a GPU worker starts within a minute: the driver, Muster and its service are there, and the
# machine's own settings come with its user data (deploy/cloud-init/worker.yaml).
#
#   cd deploy/packer
#   packer init .                            # Packer 1.7 and newer, see below
#   packer validate .
#   packer build -only="gpu-worker.*" .
#
# Packer before 1.7 has the Amazon builder built in and refuses the block that newer ones fetch it by, so that block
# stands apart. Once, for Packer 1.7 and newer: cp newer/plugins.pkr.hcl .
packer {
  required_version = ">= 1.6.6"
}

variable "region" {
  type    = string
  default = "us-east-1"
}

variable "instance_type" {
  type        = string
  default     = "g6.xlarge"
  description = "A machine with the GPU that the driver is built for."
}

variable "wheel" {
  type        = string
  default     = "../../dist/muster-0.1.0-py3-none-any.whl"
  description = "Made with: .venv/bin/python -m pip wheel --no-deps --wheel-dir dist ."
}

variable "disk_gb" {
  type        = number
  default     = 60
  description = "The models have to fit as well."
}

source "amazon-ebs" "gpu-worker" {
  region        = var.region
  instance_type = var.instance_type
  ssh_username  = "admin"
  ami_name      = "muster-gpu-worker-{{timestamp}}"

  source_ami_filter {
    filters = {
      name                = "debian-12-amd64-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
    owners      = ["136693071363"] # Debian's own images
    most_recent = true
  }

  # Packer 1.8 and newer: imds_support = "v2.0" makes every machine that starts from the image ask for metadata with a
  # token. Until then whoever starts the machine says so; nothing in the image asks without one.

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = var.disk_gb
    volume_type           = "gp3"
    iops                  = 3000
    throughput            = 125
    encrypted             = true
    delete_on_termination = true
  }

  tags = {
    Name    = "muster-gpu-worker"
    builder = "packer"
  }
}

build {
  name    = "gpu-worker"
  sources = ["source.amazon-ebs.gpu-worker"]

  provisioner "shell" {
    inline = ["mkdir -p /tmp/muster"]
  }

  provisioner "file" {
    sources = [
      "${path.root}/../../requirements/constraints.txt",
      "${path.root}/../systemd/worker-agent.service",
      "${path.root}/../systemd/sysusers.conf",
    ]
    destination = "/tmp/muster/"
  }

  provisioner "file" {
    source      = var.wheel
    destination = "/tmp/muster/"
    generated   = true # looked for when it is copied, not when this file is checked
  }

  provisioner "shell" {
    script          = "${path.root}/install.sh"
    execute_command = "sudo env {{ .Vars }} sh '{{ .Path }}'"
  }
}
