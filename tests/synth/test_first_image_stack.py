"""The parameter of the first image is alone in a stack that no change of the product ever touches."""

from cdk.first_image import FIRST_IMAGE

FOR_EVER = {
    "Description": "Scanfleet dev: the image before the first one",
    "Resources": {
        "ParameterWindowsGpuD1FE9684": {
            "Type": "AWS::SSM::Parameter",
            "Properties": {
                "Name": "/scanfleet/dev/ami/windows-gpu",
                "Type": "String",
                "DataType": "aws:ec2:image",
                "Value": f"{{{{resolve:ssm:{FIRST_IMAGE}}}}}",
                "Description": "The image of new instances. Version 1 is plain Windows;"
                " image builds write on",
            },
        }
    },
}
"""Never to be changed, unlike other expectations: with any other template a deployment would resolve AWS's
parameter anew, and put plain Windows in the place of the image that was built."""


def test_its_template_is_what_was_deployed_first(stack):
    assert stack("dev", "firstimage").body == FOR_EVER


def test_no_setting_reaches_it(stack):
    changed = stack(
        "dev",
        "firstimage",
        tags={"cost-centre": "42"},
        log_retention_days=30,
        customer_managed_key=True,
        image={"kept_images": 9},
        pools={"windows-gpu": {"max_instances": 9}},
    )

    assert changed.body == FOR_EVER
